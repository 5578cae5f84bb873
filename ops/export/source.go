package export

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

const (
	readAhead = 48 << 20 // bytes of all rows that have been read and not been written
	largeFile = 8 << 20  // bytes; a larger file goes through a temporary one
	inQueue   = 64       // rows of a part that are read ahead
)

// Names of the text files that a row has as strings.
const (
	promptFile   = "prompt.txt"
	rubricFile   = "rubric.txt"
	metadataFile = "metadata.json"
)

// source reads rows from the bucket. Every file is compared with its receipt before anyone gets it.
type source struct {
	store  *store.Store
	folder string // below which the bucket's objects lie as plain files; "": they are asked for
	memory *semaphore.Weighted
	splits *Splits
	encode func(context.Context, *Row) error // nil: files stay as they are

	rules   map[string]*inspect.Rule // of the generators' rows, once they are known
	without inspect.Set              // hints that rows do not have: of what encode changes
}

// loading is a row that is being read.
type loading struct {
	row    *Row
	weight int64
	done   chan struct{}
	err    error
}

// rows returns the rows of a part in their order, read ahead.
func (s *source) rows(ctx context.Context, p Part) iter.Seq2[*Row, error] {
	return s.stream(ctx, func(ctx context.Context, add func(*store.Cell, []chosen) error) error {
		hull := task.Range{Start: p.Ranges[0].Start, End: p.Ranges[len(p.Ranges)-1].End}
		h, n, ranges, ahead := sha256.New(), 0, p.Ranges, p.Ranges
		wanted := func(cell task.Range) bool {
			ahead = from(ahead, cell.Start)
			return len(ahead) > 0 && ahead[0].Overlaps(cell)
		}
		for cell, err := range s.store.CellsIn(ctx, p.Generator, hull, wanted) {
			if err != nil {
				return damaged(err)
			}
			if wrong := dataset.Contradiction(cell, s.store.Dataset(), p.Generator); wrong != "" {
				return &DamageError{cell.Key(), "cannot be trusted: " + wrong}
			}
			var list []chosen
			for _, c := range current(cell) {
				if ranges = from(ranges, c.sample.Index); len(ranges) > 0 && ranges[0].Start <= c.sample.Index {
					c.digest(h)
					list = append(list, c)
					n++
				}
			}
			if err := add(cell, list); err != nil {
				return err
			}
		}
		if n != p.Rows || hex.EncodeToString(h.Sum(nil)) != p.Digest {
			return errChanged
		}
		return nil
	}, nil)
}

// cell returns some samples of a cell with the files that are wanted.
func (s *source) cell(ctx context.Context, cell *store.Cell, list []chosen, want func(string) bool) iter.Seq2[*Row,
	error] {
	return s.stream(ctx, func(_ context.Context, add func(*store.Cell, []chosen) error) error {
		return add(cell, list)
	}, want)
}

var errChanged = errors.New("samples were changed while they were exported: a repair or a run is under way")

// stream has feed name the samples, reads their files ahead of who takes the rows, and yields the rows in their order.
func (s *source) stream(ctx context.Context, feed func(context.Context, func(*store.Cell, []chosen) error) error,
	want func(string) bool) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		queue := make(chan *loading, inQueue)
		var failed error
		go func() {
			defer close(queue)
			failed = feed(ctx, func(c *store.Cell, list []chosen) error { return s.feed(ctx, queue, c, list, want) })
		}()
		defer func() { // who stops early leaves rows behind
			cancel()
			for l := range queue {
				s.drop(l)
			}
		}()
		for l := range queue {
			<-l.done
			ok := yield(l.row, l.err)
			s.drop(l)
			if !ok || l.err != nil {
				return
			}
		}
		if failed != nil {
			yield(nil, failed)
		}
	}
}

func (s *source) drop(l *loading) {
	<-l.done
	s.memory.Release(l.weight)
	closeAll(l.row.Files)
}

// feed reads the samples of one cell. Rows take their memory in order: the first in a queue always has its own.
func (s *source) feed(ctx context.Context, queue chan<- *loading, cell *store.Cell, list []chosen,
	want func(string) bool) error {
	type openShard struct {
		next func() ([]File, error, bool)
		stop func()
		left int // samples
	}
	shards := map[*store.Receipt]*openShard{}
	for i := range cell.Receipts {
		r := &cell.Receipts[i]
		var of []store.ReceiptSample
		for _, c := range list {
			if c.receipt == r {
				of = append(of, c.sample)
			}
		}
		if r.Shard != nil && len(of) > 0 {
			next, stop := iter.Pull2(s.shard(ctx, *r, of, want))
			defer stop()
			shards[r] = &openShard{next, stop, len(of)}
		}
	}
	for _, c := range list {
		l := &loading{row: s.row(c), done: make(chan struct{})}
		for _, f := range c.sample.Files {
			if want == nil || want(f.Name) {
				l.weight += min(f.Size, largeFile)
			}
		}
		l.weight = min(l.weight, readAhead)
		if err := s.memory.Acquire(ctx, l.weight); err != nil {
			return err
		}
		shard := shards[c.receipt]
		if shard != nil {
			var ok bool
			if l.row.Files, l.err, ok = shard.next(); !ok && l.err == nil {
				l.err = ctx.Err()
			}
			if shard.left--; shard.left == 0 {
				shard.stop() // gives its connection back: the next shard may have to wait for it
			}
		}
		broken := l.err != nil
		select {
		case queue <- l:
		case <-ctx.Done():
			close(l.done)
			s.drop(l)
			return ctx.Err()
		}
		go func() {
			defer close(l.done)
			if shard == nil {
				l.row.Files, l.err = s.files(ctx, c, want)
			}
			if l.err == nil {
				l.err = s.fill(ctx, l.row, want == nil)
			}
			if l.err != nil {
				l.row.Files = nil
			}
		}()
		if broken {
			return nil // who takes the row has the error
		}
	}
	return nil
}

func (s *source) row(c chosen) *Row {
	r := c.receipt
	key := strings.ReplaceAll(r.Generator, ".", "-")
	var hints inspect.Set
	if rule := s.rules[r.Generator]; rule != nil {
		hints = rule.Set(new(inspect.MarksOf(&c.sample))) &^ s.without
	}
	return &Row{Hints: strings.Join(hints.Keys(), " "), Key: fmt.Sprintf("%s_%08d", key, c.sample.Index),
		Generator: r.Generator, Domain: r.Domain, ID: c.sample.ID, Index: c.sample.Index,
		Split: s.splits.of(r.Generator, c.sample.Fingerprint), Fingerprint: c.sample.Fingerprint, Seed: r.Seed,
		Attempt: r.Attempt, Commit: r.Commit, Lock: r.Lock, Python: r.Python, Platform: r.Platform,
		Options: r.Options.String()}
}

// fill sets the texts of a row, and has its video encoded if all of it was read.
func (s *source) fill(ctx context.Context, r *Row, whole bool) error {
	for name, to := range map[string]*string{promptFile: &r.Prompt, rubricFile: &r.Rubric, metadataFile: &r.Metadata} {
		if f := r.File(name); f != nil {
			file, err := f.Bytes()
			if err != nil {
				return err
			}
			*to = text(file)
		}
	}
	if whole && s.encode != nil {
		return s.encode(ctx, r)
	}
	return nil
}

// files reads the files of a sample that are objects of their own.
func (s *source) files(ctx context.Context, c chosen, want func(string) bool) (list []File, err error) {
	defer func() {
		if err != nil {
			closeAll(list)
		}
	}()
	for _, f := range c.sample.Files {
		if want != nil && !want(f.Name) {
			continue
		}
		key := c.receipt.Dataset.FileKey(c.receipt.Generator, c.sample.ID, f.Name)
		var file File
		err := s.open(ctx, key, func(from io.Reader) (err error) {
			file, err = take(key, from, f)
			return err
		})
		if errors.Is(err, store.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			err = &DamageError{key, "is not in the bucket"}
		}
		if err != nil {
			return list, err
		}
		list = append(list, file)
	}
	return list, nil
}

// open has use read an object, anew if its connection breaks.
func (s *source) open(ctx context.Context, key string, use func(io.Reader) error) error {
	if s.folder == "" {
		return s.store.Stream(ctx, key, func(from io.Reader, _ store.Object) error { return use(from) })
	}
	f, err := os.Open(filepath.Join(s.folder, filepath.FromSlash(key)))
	if err != nil {
		return err
	}
	defer f.Close()
	return use(f)
}

// take reads a file and compares it with its receipt. The error is a *DamageError, the reader's, or what failed here.
func take(name string, from io.Reader, f store.ReceiptFile) (File, error) {
	file := File{Name: f.Name, Size: f.Size, SHA256: f.SHA256}
	if f.Media != (Media{}) {
		file.Media = &f.Media
	}
	source := &sample.Source{Reader: from}
	var err error
	h := sha256.New()
	if f.Size <= largeFile {
		file.hold()
		if _, err = io.ReadFull(source, file.text); err == nil {
			_, err = io.ReadFull(source, make([]byte, 1)) // nothing follows
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil
		}
		_, _ = h.Write(file.text)
	} else if file.large, err = newTemporary(name); err == nil {
		_, err = io.Copy(io.MultiWriter(file.large, h), io.LimitReader(source, f.Size+1))
	}
	switch {
	case source.Failed != nil:
		err = source.Failed
	case err != nil:
	case source.N < f.Size:
		err = &DamageError{name, fmt.Sprintf("has %d bytes, its receipt says %d", source.N, f.Size)}
	case source.N > f.Size:
		err = &DamageError{name, fmt.Sprintf("has more than the %d bytes that its receipt says", f.Size)}
	case hex.EncodeToString(h.Sum(nil)) != f.SHA256:
		err = &DamageError{name, "is not what its receipt says: its SHA-256 differs"}
	}
	if err != nil {
		file.release()
		return File{}, err
	}
	return file, nil
}

// buffers are those of released files, by size in units of bufferUnit: new memory takes as long as reading a file.
var buffers [largeFile/bufferUnit + 1]sync.Pool

const bufferUnit = 64 << 10 // bytes

// hold makes the file's text as long as the file.
func (f *File) hold() {
	if f.Size < bufferUnit/4 {
		f.text = make([]byte, f.Size)
		return
	}
	units := (f.Size + bufferUnit - 1) / bufferUnit
	var ok bool
	if f.buffer, ok = buffers[units].Get().(*[]byte); !ok {
		f.buffer = new(make([]byte, units*bufferUnit))
	}
	f.text = (*f.buffer)[:f.Size]
}

func (f *File) release() {
	if f.large != nil {
		f.large.Close()
	}
	if f.buffer != nil {
		buffers[len(*f.buffer)/bufferUnit].Put(f.buffer)
	}
	f.text, f.buffer = nil, nil
}

func closeAll(list []File) {
	for i := range list {
		list[i].release()
	}
}

// temporary is a file without a name, so nothing of it is left whatever happens to this process.
type temporary struct {
	*os.File
	what string // goes through it
}

func newTemporary(what string) (*temporary, error) {
	f, err := os.CreateTemp("", "vm-dataset-export-")
	if err == nil {
		err = os.Remove(f.Name())
	}
	return &temporary{f, what}, failedTemporary(what, err)
}

func (t *temporary) Write(p []byte) (int, error) {
	n, err := t.File.Write(p)
	return n, failedTemporary(t.what, err)
}

// failedTemporary says which disk is full. The error is not wrapped: nobody asked for the file that is not there.
func failedTemporary(what string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s goes through the temporary folder %s: %s: name another one with TMPDIR", what, os.TempDir(),
			err.Error())
	}
	return err
}

// from returns the ranges without those that end before an index; they are in order.
func from(ranges []task.Range, index int) []task.Range {
	for len(ranges) > 0 && ranges[0].End <= index {
		ranges = ranges[1:]
	}
	return ranges
}
