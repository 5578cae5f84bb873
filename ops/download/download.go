// Package download fetches what receipts vouch for into a folder, and continues where an interrupted one was.
package download

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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/journal"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Options are where to download to, and how.
type Options struct {
	To       string // folder
	Unpack   bool   // shards into the layout of single files
	Check    bool   // every file that is there already is read, whatever its size and time
	Progress func(generator string, done, cells int)
}

const (
	downloads = 16             // objects that are downloaded at once
	partial   = ".downloading" // folder below DIR for what is incomplete; no generator has such a name
	enough    = 4 * downloads  // objects that cannot be reached, one after the other: the bucket is gone
)

// Summary is what a download has done.
type Summary struct {
	To       string   `json:"to"`
	Files    int64    `json:"files"`
	Bytes    int64    `json:"bytes"`
	Present  int64    `json:"present"` // were there already
	Problems []string `json:"problems,omitempty"`
}

// Download fetches the samples of generators. What does not fit its receipt, or cannot be
// had, is among the problems and not kept; the error is of what ended it before its end.
func Download(ctx context.Context, st *store.Store, generators []string, o Options) (Summary, error) {
	d, err := open(st, o)
	if err != nil {
		return Summary{}, err
	}
	defer d.unlock()
	for _, name := range generators {
		if err := errors.Join(d.generator(ctx, name), ctx.Err()); err != nil {
			return Summary{}, ui.WithHint(fmt.Errorf("download %s: %w", name, err), "the same command: it goes on where it was")
		}
	}
	slices.Sort(d.problems)
	return Summary{To: o.To, Files: d.files.Load(), Bytes: d.bytes.Load(), Present: d.present.Load(),
		Problems: d.problems}, nil
}

// download is one under way.
type download struct {
	store *store.Store
	Options
	root                  *os.Root // nothing is written outside it, not through links in it either
	lock                  *os.File
	files, bytes, present atomic.Int64
	temporary             atomic.Int64 // names that were given
	unreached             atomic.Int64 // objects that could not be read, since the last one that could
	mu                    sync.Mutex
	problems              []string
}

// open makes the folder ready. Only one process may download to it: what an interrupted one has left half is removed.
func open(st *store.Store, o Options) (*download, error) {
	if err := os.MkdirAll(o.To, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.Open(o.To)
	if err != nil {
		return nil, err
	}
	if errors.Is(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK) {
		lock.Close() // what is there is the other's
		return nil, fmt.Errorf("another download to %s is under way", o.To)
	}
	root, err := os.OpenRoot(o.To)
	if err != nil {
		_ = journal.Unlock(lock)
		return nil, err
	}
	d := &download{Options: o, store: st, root: root, lock: lock}
	if err := errors.Join(root.RemoveAll(partial), root.Mkdir(partial, 0o755)); err != nil {
		d.unlock()
		return nil, err
	}
	return d, nil
}

func (d *download) unlock() {
	_ = d.root.RemoveAll(partial)
	_ = journal.Unlock(d.lock)
	d.root.Close()
}

func (d *download) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.problems = append(d.problems, fmt.Sprintf(format, args...))
}

// generator downloads what the receipts of a generator vouch for.
func (d *download) generator(ctx context.Context, name string) error {
	names, err := d.store.CellNames(ctx, name, task.Range{End: task.MaxIndex})
	if err != nil {
		return err
	}
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(downloads)
	done := 0
	var order dataset.Order
	for c, err := range d.store.Cells(limited, names) {
		if broken, ok := errors.AsType[*store.Error](err); ok && errors.Is(err, store.ErrDamaged) {
			d.note("%s cannot be read: %v", broken.Key, broken.Err)
			continue
		}
		if err != nil {
			return errors.Join(group.Wait(), err)
		}
		done++
		d.Progress(name, done, len(names))
		if wrong := order.Contradiction(c, d.store.Dataset(), name); wrong != "" {
			d.note("%s cannot be trusted: %s", c.Key(), wrong)
			continue
		}
		for _, r := range c.Receipts {
			d.receipt(limited, group, r)
		}
		if limited.Err() != nil {
			break
		}
	}
	return group.Wait()
}

// receipt has the samples of a receipt downloaded.
func (d *download) receipt(ctx context.Context, group *errgroup.Group, r store.Receipt) {
	var list []expected
	for _, s := range r.Current {
		for _, f := range s.Files {
			w := expected{path.Join(r.Generator, s.ID, f.Name), f.Size, f.SHA256, r.Committed}
			if !fs.ValidPath(f.Name) {
				d.note("%s/%s: a file cannot be called %.60q", r.Generator, s.ID, f.Name)
			} else if list = append(list, w); r.Shard == nil {
				group.Go(func() error { return d.file(ctx, w, r.Dataset.FileKey(r.Generator, s.ID, f.Name)) })
			}
		}
	}
	if r.Shard != nil && len(r.Current) > 0 {
		group.Go(func() error { return d.shard(ctx, r, list) })
	}
}

// expected is a file as it should be.
type expected struct {
	name string // below the folder
	size int64
	hash string // SHA-256, hexadecimal
	time time.Time
}

// file downloads an object as it is.
func (d *download) file(ctx context.Context, w expected, key string) error {
	if d.has(w) {
		return nil
	}
	return d.judge(ctx, w.name, d.store.Stream(ctx, key,
		func(from io.Reader, _ store.Object) error { return d.save(w, from) }))
}

// shard downloads a shard, or the files that it holds.
func (d *download) shard(ctx context.Context, r store.Receipt, list []expected) error {
	name := path.Join(r.Generator, task.ShardFile(r.Shard.Key)) // one made again takes its place
	if !d.Unpack {
		return d.file(ctx, expected{name, r.Shard.Size, r.Shard.SHA256, r.Committed}, r.Shard.Key)
	}
	missing := map[string]expected{}
	for _, w := range list {
		if !d.has(w) {
			missing[w.name] = w
		}
	}
	if len(missing) == 0 {
		return nil
	}
	err := d.store.Stream(ctx, r.Shard.Key, func(from io.Reader, _ store.Object) error {
		return d.untar(ctx, from, r, missing)
	})
	if damage, ok := errors.AsType[dataset.Damage](err); ok {
		err = &fileError{reason: fmt.Sprintf("%s; %s of it not downloaded", strings.TrimPrefix(damage.Detail, "it "),
			ui.Plural(len(missing), "file"))}
	}
	return d.judge(ctx, name, err)
}

// untar takes the missing files out of a shard, and off that list. What is wrong with the shard is a dataset.Damage.
func (d *download) untar(ctx context.Context, from io.Reader, r store.Receipt, missing map[string]expected) error {
	return dataset.ReadShard(from, r, func(s store.ReceiptSample, f store.ReceiptFile, from io.Reader) error {
		name := path.Join(r.Generator, s.ID, f.Name)
		w, ok := missing[name]
		if !ok {
			return nil // there already, or replaced since
		}
		err := d.save(w, from)
		if _, ofFile := errors.AsType[*fileError](err); ofFile || err == nil { // the others may be well
			err = d.judge(ctx, name, err)
			delete(missing, name)
		}
		return err
	})
}

// fileError is of one file alone: it is not what its receipt says, or cannot be written here.
type fileError struct {
	reason string
	err    error // of writing it
}

func (e *fileError) Error() string { return e.reason }
func (e *fileError) Unwrap() error { return e.err }

// unsaved leaves the names of files out: they may be long, and who prints it names one.
func unsaved(err error) error {
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		err = number
	}
	return &fileError{err.Error(), err}
}

// judge notes why a file could not be had. It returns an error if no other can.
func (d *download) judge(ctx context.Context, name string, err error) error {
	bad, ofFile := errors.AsType[*fileError](err)
	switch {
	case err == nil:
		d.unreached.Store(0)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case ofFile && (errors.Is(bad, syscall.ENOSPC) || errors.Is(bad, syscall.EDQUOT) || errors.Is(bad, syscall.EROFS)):
		return fmt.Errorf("write to %s: %w", d.To, bad)
	case ofFile && bad.err != nil:
		d.note("%s cannot be written here: %v", name, bad)
	case ofFile:
		d.note("%s %v", name, bad)
	case errors.Is(err, store.ErrNotFound):
		d.note("%s is not in the bucket", name)
	case d.unreached.Add(1) >= enough:
		return err
	default:
		d.note("%s cannot be read: %s", name, ui.Plain(err))
	}
	return nil
}

// has reports whether a file is there as it should be: by its time if it was checked before, else by its bytes.
func (d *download) has(w expected) bool {
	info, err := d.root.Lstat(w.name)
	if err != nil || !info.Mode().IsRegular() || info.Size() != w.size {
		return false
	}
	if d.Check || w.time.IsZero() || !info.ModTime().Equal(w.time.Truncate(time.Second)) {
		f, err := d.root.Open(w.name)
		if err != nil {
			return false
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil || hex.EncodeToString(h.Sum(nil)) != w.hash {
			return false
		}
		d.stamp(w.name, w)
	}
	d.present.Add(1)
	return true
}

// stamp gives a file that was checked the time by which the next download knows it, which else reads the file.
func (d *download) stamp(name string, w expected) {
	if !w.time.IsZero() {
		at := w.time.Truncate(time.Second) // many file systems keep no less
		_ = d.root.Chtimes(name, at, at)
	}
}

// save writes a file under a temporary name and gives it its own once it is found to be what the receipt says.
func (d *download) save(w expected, from io.Reader) error {
	if err := d.root.MkdirAll(path.Dir(w.name), 0o755); err != nil {
		return unsaved(err)
	}
	if info, err := d.root.Lstat(w.name); err == nil && !info.Mode().IsRegular() {
		return unsaved(errors.New("something else that is no plain file has its name"))
	}
	temporary := path.Join(partial, strconv.FormatInt(d.temporary.Add(1), 10))
	source := &sample.Source{Reader: io.LimitReader(from, w.size+1)}
	err := atomicfile.Create(d.root, temporary, w.name, func(f *os.File) error {
		h := sha256.New()
		if _, err := io.Copy(io.MultiWriter(f, h), source); err != nil {
			return err
		}
		if source.N != w.size || hex.EncodeToString(h.Sum(nil)) != w.hash {
			return &fileError{reason: "is not what its receipt says"}
		}
		d.stamp(temporary, w)
		return nil
	})
	switch bad, ok := errors.AsType[*fileError](err); {
	case err == nil:
		d.files.Add(1)
		d.bytes.Add(w.size)
		return nil
	case ok:
		return bad
	case source.Failed != nil:
		return source.Failed
	}
	return unsaved(err)
}
