package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// ResultsCmd lists and downloads samples.
type ResultsCmd struct {
	Ls       ResultsLsCmd       `cmd:"" help:"List what is committed."`
	Download ResultsDownloadCmd `cmd:"" help:"Download samples and check them against their receipts."`
}

// ResultsLsCmd lists what is committed, generator by generator.
type ResultsLsCmd struct {
	Generator []string `help:"Only this generator; may be repeated." placeholder:"NAME" predictor:"generator"`
}

// Listed is one line of the list.
type Listed struct {
	Generator string   `json:"generator"`
	Samples   int      `json:"samples"`
	Chunks    int      `json:"chunks"`
	First     int      `json:"first"`
	Last      int      `json:"last"`
	Bytes     int64    `json:"bytes"`
	Formats   []string `json:"formats"`
}

// Help is the long help.
func (*ResultsLsCmd) Help() string {
	return `Reads the receipts of every run. BYTES is what the samples take as files, also where they are stored in shards.

Examples:
  ops --stack dev results ls
  ops --stack dev results ls --generator maze-task-data-generator --json`
}

// Run lists.
func (c *ResultsLsCmd) Run(ctx context.Context, o *Output, st *store.Store) error {
	names, err := committed(ctx, st, c.Generator)
	if err != nil {
		return err
	}
	list := []Listed{}
	for _, name := range names {
		l := Listed{Generator: name}
		view := dataset.NewView(name, task.Range{End: task.MaxIndex})
		err := eachReceipt(ctx, st, name, func(r store.Receipt) error {
			view.Add(r)
			l.Chunks++
			if f := string(r.Format); !slices.Contains(l.Formats, f) {
				l.Formats = append(l.Formats, f)
			}
			return nil
		})
		if err != nil {
			return err
		}
		l.Samples, l.Bytes = view.Samples(), view.Bytes()
		l.First, l.Last = view.Bounds()
		list = append(list, l)
	}
	return o.Print(list, func(w io.Writer) {
		fmt.Fprintln(w, "GENERATOR\tSAMPLES\tFIRST\tLAST\tCHUNKS\tSIZE\tFORMAT")
		for _, l := range list {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n", l.Generator, count(l.Samples), l.First, l.Last, count(l.Chunks), size(l.Bytes), strings.Join(l.Formats, "+"))
		}
	})
}

// committed returns the generators that have receipts, or those of them that
// were asked for.
func committed(ctx context.Context, st *store.Store, wanted []string) ([]string, error) {
	there, err := st.Folders(ctx, task.ReceiptPrefix)
	if err != nil {
		return nil, err
	}
	if len(wanted) == 0 || slices.Contains(wanted, "all") {
		return there, nil
	}
	return (&choice{Generator: wanted}).names(there)
}

func eachReceipt(ctx context.Context, st *store.Store, generator string, do func(store.Receipt) error) error {
	var names []store.ReceiptName
	for n, err := range st.ReceiptNames(ctx, generator, 0) {
		if err != nil {
			return err
		}
		names = append(names, n)
	}
	for r, err := range st.ReadReceipts(ctx, names) {
		if err != nil {
			return err
		}
		if err := do(r); err != nil {
			return err
		}
	}
	return nil
}

// ResultsDownloadCmd downloads samples.
type ResultsDownloadCmd struct {
	To        string   `help:"Folder to download to." required:"" type:"path" placeholder:"DIR"`
	Generator []string `help:"Only this generator; may be repeated." placeholder:"NAME" predictor:"generator"`
	Unpack    bool     `help:"Unpack shards into the layout of single files."`
}

// Help is the long help.
func (*ResultsDownloadCmd) Help() string {
	return `Only what has a receipt is downloaded, and every file is checked against the hash in it. A file that is there already and fits is not downloaded again, so an interrupted download goes on where it was. Samples lie in DIR/<generator>/<sample>/<file>, shards in DIR/<generator>/.

Exit status 2: something did not fit its receipt; it is named and not kept.

Examples:
  ops --stack dev results download --to dataset
  ops --stack dev results download --to dataset --generator maze-task-data-generator --unpack`
}

// downloads is how many objects are downloaded at once.
const downloads = 16

// Downloaded is the summary of a download.
type Downloaded struct {
	To       string   `json:"to"`
	Files    int64    `json:"files"`
	Bytes    int64    `json:"bytes"`
	Present  int64    `json:"present"` // were there already
	Problems []string `json:"problems,omitempty"`
}

// Run downloads.
func (c *ResultsDownloadCmd) Run(ctx context.Context, o *Output, st *store.Store) error {
	names, err := committed(ctx, st, c.Generator)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.To, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(c.To) // nothing is written outside it, not through links in it either
	if err != nil {
		return err
	}
	defer root.Close()
	d := &download{store: st, root: root, unpack: c.Unpack}
	for _, name := range names {
		if err := d.generator(ctx, o, name); err != nil {
			return fmt.Errorf("download %s: %w", name, err)
		}
	}
	s := Downloaded{To: c.To, Files: d.files.Load(), Bytes: d.bytes.Load(), Present: d.present.Load(), Problems: d.problems}
	err = o.Print(s, func(w io.Writer) {
		fmt.Fprintf(w, "%s, %s, in %s", plural(int(s.Files), "file"), size(s.Bytes), s.To)
		if s.Present > 0 {
			fmt.Fprintf(w, "; %s there already", plural(int(s.Present), "file"))
		}
		fmt.Fprintln(w)
		for _, p := range s.Problems {
			fmt.Fprintln(w, p)
		}
	})
	if err == nil && len(s.Problems) > 0 {
		return problem("%s did not fit the receipts", plural(len(s.Problems), "object"))
	}
	return err
}

type download struct {
	store                 *store.Store
	root                  *os.Root
	unpack                bool
	files, bytes, present atomic.Int64
	mu                    sync.Mutex
	problems              []string
}

func (d *download) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.problems = append(d.problems, fmt.Sprintf(format, args...))
}

// generator downloads what the receipts of a generator vouch for. Where two
// receipts hold an index, the one with the higher claim describes it.
func (d *download) generator(ctx context.Context, o *Output, name string) error {
	view := dataset.NewView(name, task.Range{End: task.MaxIndex})
	chunks := 0
	err := eachReceipt(ctx, d.store, name, func(r store.Receipt) error {
		chunks++
		view.Add(r)
		return nil
	})
	if err != nil {
		return err
	}
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(downloads)
	done := 0
	err = eachReceipt(limited, d.store, name, func(r store.Receipt) error {
		done++
		o.Progress(name, done, chunks)
		current := slices.DeleteFunc(slices.Clone(r.Samples), func(s store.ReceiptSample) bool { return !view.Describes(r, s.Index) })
		if r.Shard != nil {
			if len(current) > 0 {
				group.Go(func() error { return d.shard(limited, r, current) })
			}
			return limited.Err()
		}
		for _, s := range current {
			for _, f := range s.Files {
				group.Go(func() error { return d.file(limited, name, s.ID, f) })
			}
		}
		return limited.Err()
	})
	return errors.Join(group.Wait(), ignoreCanceled(err))
}

// ignoreCanceled drops the error that only says that another one ended the work.
func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (d *download) file(ctx context.Context, generator, id string, f store.ReceiptFile) error {
	name := path.Join(generator, id, f.Name)
	if d.has(name, f.Size, f.SHA256) {
		return nil
	}
	body, _, err := d.store.Get(ctx, task.FileKey(generator, id, f.Name))
	if errors.Is(err, store.ErrNotFound) {
		d.note("%s is not in the bucket", name)
		return nil
	}
	if err != nil {
		return err
	}
	defer body.Close()
	return d.save(name, body, f.Size, f.SHA256)
}

// has reports whether a file is there and is what it should be.
func (d *download) has(name string, size int64, hash string) bool {
	info, err := d.root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() != size {
		return false
	}
	f, err := d.root.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil || hex.EncodeToString(h.Sum(nil)) != hash {
		return false
	}
	d.present.Add(1)
	return true
}

// save writes a file under a temporary name and gives it its own once it is
// found to be what the receipt says.
func (d *download) save(name string, from io.Reader, size int64, hash string) error {
	if err := d.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	partial := name + ".part"
	f, err := d.root.OpenFile(partial, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(from, size+1))
	err = errors.Join(err, f.Close())
	if err == nil && (n != size || hex.EncodeToString(h.Sum(nil)) != hash) {
		d.note("%s is not what its receipt says", name)
		return d.root.Remove(partial)
	}
	if err == nil {
		if info, e := d.root.Lstat(name); e == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is no plain file", name)
		} else {
			err = d.root.Rename(partial, name)
		}
	}
	if err != nil {
		_ = d.root.Remove(partial)
		return fmt.Errorf("save %s: %w", name, err)
	}
	d.files.Add(1)
	d.bytes.Add(n)
	return nil
}

func (d *download) shard(ctx context.Context, r store.Receipt, samples []store.ReceiptSample) error {
	name := path.Join(r.Generator, path.Base(r.Shard.Key))
	if !d.unpack && d.has(name, r.Shard.Size, r.Shard.SHA256) || d.unpack && d.hasAll(r.Generator, samples) {
		return nil
	}
	body, _, err := d.store.Get(ctx, r.Shard.Key)
	if errors.Is(err, store.ErrNotFound) {
		d.note("%s is not in the bucket", name)
		return nil
	}
	if err != nil {
		return err
	}
	defer body.Close()
	if !d.unpack {
		return d.save(name, body, r.Shard.Size, r.Shard.SHA256)
	}
	err = d.untar(body, r, samples)
	var bad *archiveError
	if errors.As(err, &bad) {
		d.note("%s: %s", name, bad.reason)
		return nil
	}
	return err
}

func (d *download) hasAll(generator string, samples []store.ReceiptSample) bool {
	for _, s := range samples {
		for _, f := range s.Files {
			info, err := d.root.Lstat(path.Join(generator, s.ID, f.Name))
			if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() != f.Size {
				return false
			}
		}
	}
	for _, s := range samples {
		for _, f := range s.Files {
			if !d.has(path.Join(generator, s.ID, f.Name), f.Size, f.SHA256) {
				return false
			}
		}
	}
	return true
}
