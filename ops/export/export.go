package export

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// Files that every export has.
const (
	manifestFile = "export.json" // the plan
	sumsFile     = "SHA256SUMS"  // of all other files; it is written last
)

// Formats has them all by their names.
var Formats = map[string]func() Format{"webdataset": Webdataset, "parquet": Parquet, "vbvr": VBVR, "folder": Folder,
	"manifest": Manifest}

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
	// About returns what the catalogue says of a generator; empty for what is not known. It may be nil.
	About func(generator string) (licence, repository, category string)

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
	Flagged int            `json:"flagged,omitempty"` // samples that were left out
	Notes   []string       `json:"notes,omitempty"`   // what a user should know of the samples
	Already bool           `json:"already,omitempty"` // it was finished before
}

// record says that a part is finished.
type record struct {
	Digest string    `json:"digest"` // of the part
	Files  []Written `json:"files"`
}

// unfinished is what an unfinished export says of itself, and a finished one, too, among other things.
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
	e.source = &source{store: e.Store, folder: e.Folder, memory: semaphore.NewWeighted(readAhead), encode: e.Encode,
		rules: map[string]*inspect.Rule{}}
	if e.Options.Video != "" {
		e.source.without = inspect.Unplayable.Set() | inspect.VideoSize.Set() | inspect.Length.Set()
	}
	plan, err := e.makePlan(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.Format.Check(plan); err != nil {
		return nil, err
	}
	summary := &Summary{Dataset: plan.Dataset, Format: plan.Format, To: e.To.String(), Samples: plan.Rows(),
		Splits: map[string]int{}, Parts: len(plan.Parts), Missing: plan.Missing}
	if plan.Flagged != nil {
		summary.Flagged = plan.Flagged.Samples
	}
	for _, g := range plan.Generators {
		for split, n := range g.Splits {
			summary.Splits[split] += n
		}
		n := 0
		for _, videos := range g.Unplayable {
			n += videos
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
	if err := e.finish(ctx, plan, summary); errors.Is(err, fs.ErrNotExist) { // its own notes
		return nil, fmt.Errorf("another export is at work in %s", e.To)
	} else if err != nil {
		return nil, err
	}
	return summary, e.To.RemoveAll(ctx, state)
}

// begin finds out whether the destination is empty, or holds the same export, finished or not.
func (e *Export) begin(ctx context.Context, plan *Plan) (finished bool, err error) {
	now := unfinished{plan.id(), plan.Dataset, plan.Format, plan.Options}
	err = e.To.Read(ctx, sumsFile, func(io.Reader) error { return nil })
	sums := err == nil
	if err != nil && !absent(err) {
		return false, err
	}
	var there *unfinished
	if sums {
		if there, err = e.there(ctx, manifestFile); err != nil {
			return false, err
		}
	}
	switch {
	case there != nil && there.ID == now.ID:
		lost, err := e.lost(ctx)
		if err != nil {
			return false, err
		}
		if lost == "" {
			return true, e.To.RemoveAll(ctx, state)
		}
		e.Say("%s was finished, but %s is missing or cut off: it is exported again", e.To, lost)
		if err := e.claim(ctx, now, plan); err != nil {
			return false, err
		}
	case there == nil: // nor is SHA256SUMS of any worth, which a crash may have left
		if there, err = e.there(ctx, state+"plan.json"); err != nil {
			return false, err
		}
	}
	switch {
	case there == nil:
		if err := e.empty(ctx); err != nil {
			return false, err
		}
		if err := e.claim(ctx, now, plan); err != nil {
			return false, err
		}
		if err := e.empty(ctx); err != nil { // another export has begun and ended meanwhile
			return false, errors.Join(err, e.To.RemoveAll(ctx, state))
		}
	case there.ID != now.ID:
		return false, e.other(*there, plan)
	case sums:
		return false, e.To.RemoveAll(ctx, sumsFile)
	}
	return false, nil
}

// there reads what an export says of itself, or nil if there is none, or not all of it.
func (e *Export) there(ctx context.Context, name string) (*unfinished, error) {
	var u unfinished
	err := e.readJSON(ctx, name, &u)
	if absent(err) {
		return nil, nil //nolint:nilnil // there is none
	}
	return &u, err
}

// claim notes what is exported, unless another export has done so.
func (e *Export) claim(ctx context.Context, now unfinished, plan *Plan) error {
	text, err := json.MarshalIndent(now, "", "  ")
	if err != nil {
		return err
	}
	text, err = e.To.Claim(ctx, state+"plan.json", text)
	if err != nil {
		return err
	}
	var there unfinished
	if err := json.Unmarshal(text, &there); err != nil {
		return fmt.Errorf("%splan.json of %s cannot be read: %w", state, e.To, err)
	}
	if there.ID != now.ID {
		return e.other(there, plan)
	}
	return nil
}

func (e *Export) empty(ctx context.Context) error {
	for f, err := range e.To.List(ctx, "") {
		if err != nil {
			return err
		}
		if !strings.HasPrefix(f.Name, ".") {
			return fmt.Errorf("%s %w: %s", e.To, ErrOther, f.Name)
		}
	}
	return nil
}

// lost names a file of SHA256SUMS that is not there, or empty and should not be; nothing if there is none.
func (e *Export) lost(ctx context.Context) (string, error) {
	there, err := listSizes(ctx, e.To)
	if err != nil {
		return "", err
	}
	last := false // SHA256SUMS goes on to the files that are written last
	for f, err := range sums(ctx, e.To) {
		if errors.Is(err, errNoSum) {
			return sumsFile, nil
		}
		if err != nil {
			return "", err
		}
		if size, ok := there.of(f.Name); !ok || size == 0 && f.SHA256 != sumOfNothing {
			return f.Name, nil
		}
		last = last || f.Name == manifestFile
	}
	if !last {
		return sumsFile, nil
	}
	return "", nil
}

func (e *Export) other(there unfinished, plan *Plan) error {
	what := "of other samples: the dataset has changed since"
	switch {
	case there.Dataset != plan.Dataset:
		what = "of dataset " + there.Dataset
	case there.Format != plan.Format:
		what = "in the format " + there.Format
	case !reflect.DeepEqual(there.Options, plan.Options):
		what = "with other options"
	}
	return fmt.Errorf("%s %w: an export %s", e.To, ErrOther, what)
}

// parts writes the parts that have no record.
func (e *Export) parts(ctx context.Context, plan *Plan) (resumed int, err error) {
	finished, err := e.finished(ctx, plan)
	if err != nil {
		return 0, err
	}
	var mu sync.Mutex
	at := Progress{Doing: "exporting", Total: plan.Bytes(), Bytes: true}
	count := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		at.Done += n
		e.Progress(at)
	}
	left := slices.DeleteFunc(slices.Clone(plan.Parts), func(p Part) bool {
		if finished[p.Name] {
			at.Done += p.Bytes
		}
		return finished[p.Name]
	})
	count(0) // what is finished before anything is written tells nothing about the speed
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(e.workers(plan))
	for _, p := range left {
		group.Go(func() error { return e.part(limited, p, count) })
	}
	return len(finished), group.Wait()
}

func (e *Export) workers(plan *Plan) int {
	n := e.Workers
	if n == 0 {
		n = max(4, runtime.NumCPU())
	}
	const memory = 128 << 20 // of all parts, so that all takes less than 300 MB
	if each := e.Format.Cut(e.Options.ShardSize).Memory; each > 0 {
		for _, g := range plan.Generators {
			each = max(each, 4*g.Largest) // it is read, and the writer has copies
		}
		n = max(1, min(n, int(memory/each)))
	}
	return n
}

// finished returns the parts whose record is that of the plan's part, and whose files are there with their sizes.
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
	sizes, err := listSizes(ctx, e.To)
	if err != nil {
		return nil, err
	}
	for _, p := range plan.Parts {
		if !records[p.Name] {
			continue
		}
		var r record
		if err := e.readJSON(ctx, recordName(p), &r); errors.Is(err, errCut) {
			continue
		} else if err != nil {
			return nil, err
		}
		there := r.Digest == p.Digest
		for _, f := range r.Files {
			size, ok := sizes.of(f.Name)
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
	out := &Output{export: e}
	write := func(note func(*Row) error) error {
		return e.Format.Part(ctx, p, through(e.source.rows(ctx, p), func(r *Row) (*Row, error) {
			count(r.bytes())
			return r, note(r)
		}), out)
	}
	var err error
	if e.Format.Cut(e.Options.ShardSize).Rows {
		err = e.To.Create(ctx, rowsName(p), 0, func(w io.Writer) error {
			packed, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
			rows := encoder(packed)
			return cmp.Or(write(func(r *Row) error { return rows.Encode(r) }), packed.Close())
		})
	} else {
		err = write(func(*Row) error { return nil })
	}
	if err != nil {
		return err
	}
	return e.To.Commit(ctx, recordName(p),
		func(w io.Writer) error { return encodeJSON(w, record{p.Digest, out.sorted()}) })
}

// through yields what do makes of each row, and ends with the first error.
func through[T any](rows iter.Seq2[*Row, error], do func(*Row) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for r, err := range rows {
			var made T
			if err == nil {
				made, err = do(r)
			}
			if !yield(made, err) || err != nil {
				return
			}
		}
	}
}

// errCut says that a file of an export was not written to its end.
var errCut = errors.New("cannot be read")

// absent reports whether a file is not there, or not all of it.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errCut) }

func (e *Export) readJSON(ctx context.Context, name string, to any) error {
	return e.To.Read(ctx, name, func(from io.Reader) error {
		text, err := io.ReadAll(from)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, to); err != nil {
			return fmt.Errorf("%s of %s %w: %w", name, e.To, errCut, err)
		}
		return nil
	})
}

func encodeJSON(w io.Writer, v any) error {
	e := encoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func encoder(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}
