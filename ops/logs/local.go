package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// local reads the log files of the local stack's workers.
type local struct {
	dir    string
	filter Filter
	since  time.Time
	files  map[string]*tail // by path
}

type tail struct {
	file    *os.File
	rest    string // a line that has no end yet
	matched bool   // the worker's last line was one that is wanted
}

func newLocal(localDir string, f Filter, since time.Time) (*local, error) {
	dir := filepath.Join(localDir, "logs")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, ui.WithHint(fmt.Errorf("no worker has logged anything in %s yet", localDir),
			"ops local up, then ops --stack local submit --all --samples 20")
	}
	return &local{dir: dir, filter: f, since: since, files: map[string]*tail{}}, nil
}

func (s *local) next(ctx context.Context, show func(Line) error) error {
	paths, err := filepath.Glob(filepath.Join(s.dir, "worker-*.log"))
	if err != nil {
		return err
	}
	var lines []Line
	for _, path := range paths {
		found, err := s.read(path)
		if err != nil {
			return err
		}
		lines = append(lines, found...)
	}
	slices.SortStableFunc(lines, byTime)
	for _, l := range lines {
		if err := show(l); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// read returns the new lines of a log file. The stack renames one that has grown
// large to .old when it starts a worker, whose new file then takes its name.
func (s *local) read(path string) ([]Line, error) {
	t := s.files[path]
	if t == nil {
		t = &tail{}
		t.file, _ = os.Open(path + ".old") // there may be none
		s.files[path] = t
	}
	var lines []Line
	for {
		if t.file != nil {
			found, err := s.drain(path, t)
			if err != nil {
				return nil, err
			}
			lines = append(lines, found...)
			mine, err := t.file.Stat()
			if err != nil {
				return nil, err
			}
			now, err := os.Stat(path)
			if err != nil || os.SameFile(mine, now) {
				return lines, nil
			}
			// What was written between the last read and the renaming is still in it.
			if found, err = s.drain(path, t); err != nil {
				return nil, err
			}
			lines = append(lines, found...)
			t.file.Close()
		}
		next, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		t.file, t.rest = next, ""
	}
}

// drain reads complete lines to the end of the file. Lines of others than the worker, such as a crash, belong to what
// it was at, and have no time: they cannot be younger than the next line that has one, or than the file.
func (s *local) drain(path string, t *tail) ([]Line, error) {
	var lines, timeless []Line
	settle := func(at time.Time) {
		for _, l := range timeless {
			if l.time = at; !at.Before(s.since) {
				lines = append(lines, l)
			}
		}
		timeless = nil
	}
	for r := bufio.NewReader(t.file); ; {
		part, err := r.ReadString('\n')
		t.rest += part
		if errors.Is(err, io.EOF) {
			info, err := t.file.Stat()
			if err != nil {
				return nil, err
			}
			settle(info.ModTime())
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		l := newLine("", filepath.Base(path), t.rest, time.Time{})
		t.rest = ""
		matched := s.filter.match(l)
		if l.fields == nil {
			matched = s.filter.empty() || t.matched
		} else if !l.isMetric() {
			t.matched = matched
		}
		if matched {
			timeless = append(timeless, l)
		}
		if !l.time.IsZero() {
			settle(l.time)
		}
	}
}
