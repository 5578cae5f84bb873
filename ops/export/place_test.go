package export_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// meddling does something once: after its files were listed, or before a file is written.
type meddling struct {
	export.Destination
	listed func()
	name   string
	write  func()
}

func once(act *func()) {
	if do := *act; do != nil {
		*act = nil
		do()
	}
}

func (m *meddling) List(ctx context.Context, prefix string) iter.Seq2[export.Written, error] {
	return func(yield func(export.Written, error) bool) {
		for f, err := range m.Destination.List(ctx, prefix) {
			if !yield(f, err) {
				return
			}
		}
		if prefix == "" {
			once(&m.listed)
		}
	}
}

func (m *meddling) Create(ctx context.Context, name string, size int64, write func(io.Writer) error) error {
	if name == m.name {
		once(&m.write)
	}
	return m.Destination.Create(ctx, name, size, write)
}

// Two exports to one prefix that begin together are kept apart: the later one is refused,
// and changes nothing.
func TestTwoBegin(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze)
	for name, finish := range map[string]bool{"the other has ended": true, "the other is under way": false} {
		t.Run(name, func(t *testing.T) {
			place := strings.ReplaceAll(name, " ", "-")
			to := export.OpenPrefix(store.New(b.Client(nil), "bucket"), place)
			ctx, stop := context.WithCancel(t.Context())
			first := export.Export{Store: b.store, Format: export.Webdataset(), Options: small, To: to, Workers: 1, Say: t.Logf,
				Progress: func(p export.Progress) {
					if !finish && p.Bytes && p.Done > p.Total/2 {
						stop()
					}
				}}
			second := first
			second.Options.Split, second.Progress = "", func(export.Progress) {}
			var before map[string]string
			second.To = &meddling{Destination: to, listed: func() {
				if _, err := first.Run(ctx); (err == nil) != finish {
					t.Errorf("the first: %v", err)
				}
				before = content(t, filepath.Join(b.Folder, place))
			}}
			if _, err := second.Run(t.Context()); !errors.Is(err, export.ErrOther) {
				t.Errorf("the second: %v", err)
			}
			if list := differences(before, content(t, filepath.Join(b.Folder, place))); len(list) > 0 {
				t.Errorf("%v differ", list)
			}
		})
	}
}

// The same export to the same prefix by two processes: the one that ends later says why.
func TestTwoEnd(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze)
	to := export.OpenPrefix(store.New(b.Client(nil), "bucket"), "both")
	e := export.Export{Store: b.store, Format: export.Webdataset(), Options: small, To: to, Say: t.Logf,
		Progress: func(export.Progress) {}}
	other := e
	e.To = &meddling{Destination: to, name: "README.md", write: func() {
		_, err := other.Run(t.Context())
		check(t, err)
	}}
	if _, err := e.Run(t.Context()); err == nil || err.Error() != "another export is at work in s3://bucket/both" {
		t.Errorf("%v", err)
	}
	if r, err := export.Verify(t.Context(), to, func(export.Progress) {}); err != nil || r.Wrong > 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// An export that a crash or a person has left with less than all of its files goes on.
func TestLost(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze)
	whole := t.TempDir()
	e := export.Export{Store: b.store, Format: export.Webdataset(), Options: small}
	_, err := exported(t.Context(), t, e, whole)
	check(t, err)
	want := content(t, whole)
	shard := shardsOf(want, maze.Name)[1]
	// state is that of an export of which all parts are finished.
	state := t.TempDir()
	to, err := export.OpenFolder(state)
	check(t, err)
	stopped := e
	stopped.To, stopped.Progress, stopped.Say = full{to}, func(export.Progress) {}, t.Logf
	if _, err := stopped.Run(t.Context()); !errors.Is(err, errFull) {
		t.Fatal(err)
	}
	check(t, to.Close())
	records, err := filepath.Glob(filepath.Join(state, ".export", "parts", "*"))
	check(t, err)
	record, _ := filepath.Rel(state, records[0])
	sums := want["SHA256SUMS"]
	for _, test := range []struct {
		name, from string
		files      map[string]string // and what they hold then; "-" is removed
		resumed    int               // parts; -1 for all
	}{
		{"an empty record", state, map[string]string{record: ""}, len(records) - 1},
		{"half a record", state, map[string]string{record: `{"digest": "`}, len(records) - 1},
		{"empty sums", state, map[string]string{"SHA256SUMS": "", "export.json": ""}, len(records)},
		{"empty sums, no manifest", state, map[string]string{"SHA256SUMS": ""}, len(records)},
		{"empty sums of a finished export", whole, map[string]string{"SHA256SUMS": ""}, 0},
		{"half a line of the sums", whole, map[string]string{"SHA256SUMS": sums[:len(sums)-9]}, 0},
		{"half of the sums", whole, map[string]string{"SHA256SUMS": sums[:strings.Index(sums, "\n")+1]}, 0},
		{"no shard", whole, map[string]string{shard: "-"}, 0},
		{"an empty shard", whole, map[string]string{shard: ""}, 0},
		{"no card", whole, map[string]string{"README.md": "-"}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			check(t, os.CopyFS(dir, os.DirFS(test.from)))
			for name, text := range test.files {
				if text == "-" {
					check(t, os.Remove(filepath.Join(dir, name)))
				} else {
					check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
				}
			}
			s, err := exported(t.Context(), t, e, dir)
			if err != nil || s.Already || s.Resumed != test.resumed {
				t.Fatalf("%+v, %v", s, err)
			}
			if list := differences(want, content(t, dir)); len(list) > 0 {
				t.Errorf("%v differ", list)
			}
		})
	}
	check(t, os.WriteFile(filepath.Join(whole, "notes.txt"), nil, 0o644)) // what a user adds does no harm
	if s, err := exported(t.Context(), t, e, whole); err != nil || !s.Already {
		t.Errorf("%+v, %v", s, err)
	}
}

// reads notes whether a file is read while SHA256SUMS is open.
type reads struct {
	export.Destination
	open, both atomic.Bool
}

func (r *reads) Read(ctx context.Context, name string, use func(io.Reader) error) error {
	if name != "SHA256SUMS" {
		if r.open.Load() {
			r.both.Store(true)
		}
		return r.Destination.Read(ctx, name, use)
	}
	r.open.Store(true)
	defer r.open.Store(false)
	return r.Destination.Read(ctx, name, use)
}

// To verify takes hours, which no connection lasts: SHA256SUMS is read before the files are.
func TestVerifyReads(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze)
	dir := t.TempDir()
	_, err := exported(t.Context(), t, export.Export{Store: b.store, Format: export.Folder()}, dir)
	check(t, err)
	from, err := export.ReadFolder(dir)
	check(t, err)
	defer from.Close()
	r := &reads{Destination: from}
	if report, err := export.Verify(t.Context(), r, func(export.Progress) {}); err != nil || report.Wrong > 0 ||
		r.both.Load() {
		t.Errorf("%+v, %v; files were read while SHA256SUMS was open: %v", report, err, r.both.Load())
	}
}

// full fails as the card is written, when all parts are finished.
type full struct{ export.Destination }

var errFull = errors.New("full")

func (f full) Create(ctx context.Context, name string, size int64, write func(io.Writer) error) error {
	if name == "README.md" {
		return errFull
	}
	return f.Destination.Create(ctx, name, size, write)
}

// Parts that were finished before are no progress of the export that goes on: they are counted
// once, before all others.
func TestProgressResumed(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze)
	to, err := export.OpenFolder(t.TempDir())
	check(t, err)
	defer to.Close()
	e := export.Export{Store: b.store, Format: export.Webdataset(), Options: small, To: full{to}, Say: t.Logf,
		Progress: func(export.Progress) {}}
	if _, err := e.Run(t.Context()); !errors.Is(err, errFull) {
		t.Fatal(err)
	}
	var bytes []int64
	e.To, e.Progress = to, func(p export.Progress) {
		if p.Bytes {
			if bytes = append(bytes, p.Done); p.Done > p.Total {
				t.Errorf("%+v", p)
			}
		}
	}
	s, err := e.Run(t.Context())
	check(t, err)
	if s.Resumed < 3 || len(bytes) != 1 {
		t.Errorf("%d parts were resumed; the progress was %v", s.Resumed, bytes)
	}
}
