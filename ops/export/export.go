package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// Files that every export has.
const (
	manifestFile = "export.json" // the plan
	sumsFile     = "SHA256SUMS"  // of all other files; it is written last
)

// Export is one export of a dataset.
type Export struct {
	Store   *store.Store // of the dataset
	Folder  string       // below which its objects lie as plain files; empty if they must be asked for
	To      Destination
	Format  Format
	Options Options
	Workers int // parts that are written at once; 0: as many as there are CPUs, at least 4

	// Encode changes the files of a row that was read; nil leaves them as they are.
	Encode func(context.Context, *Row) error
	// About returns a generator's licence and repository, as catalogued; empty for what is not known. It may be nil.
	About func(generator string) (licence, repository string)

	Progress func(Progress)                   // never nil
	Say      func(format string, args ...any) // never nil

	source *source
}

// Progress says how far an export is.
type Progress struct {
	Doing string
	Done  int64 // of Total: cells or bytes
	Total int64
	Bytes bool // what is counted
}

// Summary is what an export has done.
type Summary struct {
	Dataset string         `json:"dataset"`
	Format  string         `json:"format"`
	To      string         `json:"to"`
	Samples int            `json:"samples"`
	Splits  map[string]int `json:"splits"` // samples
	Parts   int            `json:"parts"`
	Resumed int            `json:"resumed"` // parts that an interrupted export had finished
	Files   int            `json:"files"`
	Bytes   int64          `json:"bytes"`             // of the export
	Missing map[string]int `json:"missing,omitempty"` // samples by generator
	Notes   []string       `json:"notes,omitempty"`   // what a user should know of the samples
	Already bool           `json:"already,omitempty"` // it was finished before
}

// record says that a part is finished.
type record struct {
	Digest string    `json:"digest"` // of the part
	Files  []Written `json:"files"`
}

// unfinished is what an unfinished export says of itself.
type unfinished struct {
	ID      string  `json:"id"` // of the plan
	Dataset string  `json:"dataset"`
	Format  string  `json:"format"`
	Options Options `json:"options"`
}

// ErrOther says that the destination holds something else.
var ErrOther = errors.New("holds something else")

// Run exports. If it is interrupted, the next call does the parts that are left.
func (e *Export) Run(ctx context.Context) (*Summary, error) {
	splits, err := ParseSplits(e.Options.Split)
	if err != nil {
		return nil, fmt.Errorf("--split: %w", err)
	}
	e.source = &source{store: e.Store, folder: e.Folder, memory: semaphore.NewWeighted(readAhead), splits: splits,
		encode: e.Encode}
	plan, err := e.makePlan(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.Format.Check(plan); err != nil {
		return nil, err
	}
	summary := &Summary{Dataset: plan.Dataset, Format: plan.Format, To: e.To.String(), Samples: plan.Rows(),
		Splits: map[string]int{}, Parts: len(plan.Parts), Missing: plan.Missing}
	for _, g := range plan.Generators {
		for split, n := range g.Splits {
			summary.Splits[split] += n
		}
	}
	for _, g := range plan.Generators {
		n := 0
		for _, u := range silent(g) {
			n += u.Videos
		}
		if n > 0 && e.Options.Video == "" {
			summary.Notes = append(summary.Notes, fmt.Sprintf(
				"%s: browsers do not play %d of its videos; --video h264 encodes them again", g.Name, n))
		}
	}
	if summary.Already, err = e.begin(ctx, plan); err != nil || summary.Already {
		return summary, err
	}
	if summary.Resumed, err = e.parts(ctx, plan); err != nil {
		return nil, err
	}
	if err := e.finish(ctx, plan, summary); err != nil {
		return nil, err
	}
	return summary, e.To.RemoveAll(ctx, state)
}

// begin finds out whether the destination is empty, or holds the same export, finished or
// not.
func (e *Export) begin(ctx context.Context, plan *Plan) (finished bool, err error) {
	now := unfinished{plan.id(), plan.Dataset, plan.Format, plan.Options}
	if err := e.readJSON(ctx, sumsFile, nil); err == nil {
		var there finishedPlan
		if err := e.readJSON(ctx, manifestFile, &there); err != nil {
			return false, err
		}
		if there.ID == now.ID {
			return true, e.To.RemoveAll(ctx, state)
		}
		return false, e.other(there.Dataset, there.Format, there.Options, plan)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	var there unfinished
	err = e.readJSON(ctx, state+"plan.json", &there)
	switch {
	case err == nil && there.ID == now.ID:
		return false, nil
	case err == nil:
		return false, e.other(there.Dataset, there.Format, there.Options, plan)
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	for f, err := range e.To.List(ctx, "") {
		if err != nil {
			return false, err
		}
		if !strings.HasPrefix(f.Name, ".") {
			return false, fmt.Errorf("%s %w: %s", e.To, ErrOther, f.Name)
		}
	}
	return false, e.writeJSON(ctx, state+"plan.json", now)
}

// other says what else a destination holds.
func (e *Export) other(dataset, format string, options Options, plan *Plan) error {
	what := "of other samples: the dataset has changed since"
	switch {
	case dataset != plan.Dataset:
		what = "of dataset " + dataset
	case format != plan.Format:
		what = "in the format " + format
	case !options.equal(plan.Options):
		what = "with other options"
	}
	return fmt.Errorf("%s %w: an export %s", e.To, ErrOther, what)
}

func (o Options) equal(p Options) bool {
	a, errA := json.Marshal(o)
	b, errB := json.Marshal(p)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// parts writes the parts that have no record.
func (e *Export) parts(ctx context.Context, plan *Plan) (resumed int, err error) {
	finished, err := e.finished(ctx, plan)
	if err != nil {
		return 0, err
	}
	var done atomic.Int64
	total := plan.Bytes()
	var mu sync.Mutex
	count := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		e.Progress(Progress{Doing: "exporting", Done: done.Add(n), Total: total, Bytes: true})
	}
	var left []Part
	for _, p := range plan.Parts {
		if finished[p.Name] {
			done.Add(p.Bytes)
		} else {
			left = append(left, p)
		}
	}
	count(0) // what is finished before anything is written tells nothing about the speed
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(e.workers())
	for _, p := range left {
		group.Go(func() error { return e.part(limited, p, count) })
	}
	return len(finished), group.Wait()
}

func (e *Export) workers() int {
	n := e.Workers
	if n == 0 {
		n = max(4, runtime.NumCPU())
	}
	const memory = 128 << 20 // of all parts, so that all takes less than 300 MB
	if each := e.Format.Cut(e.Options.ShardSize).Memory; each > 0 {
		n = max(1, min(n, int(memory/each)))
	}
	return n
}

// finished returns the parts whose record is that of the plan's part, and whose files are
// there with their sizes.
func (e *Export) finished(ctx context.Context, plan *Plan) (map[string]bool, error) {
	records := map[string]bool{}
	for f, err := range e.To.List(ctx, state+"parts/") {
		if err != nil {
			return nil, err
		}
		records[strings.TrimSuffix(path.Base(f.Name), ".json")] = true
	}
	if len(records) == 0 {
		return nil, nil
	}
	finished := map[string]bool{}
	sizes := map[string]int64{}
	for f, err := range e.To.List(ctx, "") {
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(f.Name, ".") {
			sizes[f.Name] = f.Size
		}
	}
	for _, p := range plan.Parts {
		if !records[p.Name] {
			continue
		}
		var r record
		if err := e.readJSON(ctx, recordName(p), &r); err != nil {
			return nil, err
		}
		there := r.Digest == p.Digest
		for _, f := range r.Files {
			size, ok := sizes[f.Name]
			there = there && ok && size == f.Size
		}
		if there {
			finished[p.Name] = true
		}
	}
	return finished, nil
}

func recordName(p Part) string { return state + "parts/" + p.Name + ".json" }

// part writes the files of a part, and then its record.
func (e *Export) part(ctx context.Context, p Part, count func(int64)) error {
	out := &output{export: e}
	rows := counted(e.source.rows(ctx, p), count)
	var noted *rowWriter
	if e.Format.Cut(e.Options.ShardSize).Rows {
		noted = newRowWriter(ctx, e.To, p)
		rows = noted.tee(rows)
	}
	err := e.Format.Part(ctx, p, rows, out)
	if noted != nil {
		err = noted.end(err)
	}
	if err != nil {
		return err
	}
	return e.writeJSON(ctx, recordName(p), record{p.Digest, out.sorted()})
}

// counted reports the bytes of the rows that pass.
func counted(rows iter.Seq2[*Row, error], count func(int64)) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		for r, err := range rows {
			if !yield(r, err) {
				return
			}
			if err != nil {
				continue
			}
			var n int64
			for _, f := range r.Files {
				n += f.Size
			}
			count(n)
		}
	}
}

func (e *Export) readJSON(ctx context.Context, name string, to any) error {
	return e.To.Read(ctx, name, func(from io.Reader) error {
		if to == nil {
			return nil
		}
		if err := json.NewDecoder(from).Decode(to); err != nil {
			return fmt.Errorf("%s of %s cannot be read: %w", name, e.To, err)
		}
		return nil
	})
}

func (e *Export) writeJSON(ctx context.Context, name string, v any) error {
	return e.To.Create(ctx, name, 0, func(w io.Writer) error { return encodeJSON(w, v) })
}

// encodeJSON writes a JSON text for people, too.
func encodeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
