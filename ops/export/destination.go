package export

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// Destination is where an export is written: a folder, or a prefix of a bucket. A file is
// there entirely or not at all. Names have slashes. Reading one that is not there fails with
// fs.ErrNotExist.
type Destination interface {
	fmt.Stringer
	// Create writes a file, or replaces it. The size is an estimate in bytes.
	Create(ctx context.Context, name string, size int64, write func(io.Writer) error) error
	// Commit is Create of a file that vouches for others: a power failure leaves it only with all files that were
	// created before it. It is on the disk when Commit returns.
	Commit(ctx context.Context, name string, write func(io.Writer) error) error
	// Claim commits a small file where there is none. It returns what is there then, which another process may have
	// written.
	Claim(ctx context.Context, name string, text []byte) (there []byte, err error)
	// Read has use read a file, anew if a connection breaks.
	Read(ctx context.Context, name string, use func(io.Reader) error) error
	// List returns the files whose names have a prefix, and their sizes.
	List(ctx context.Context, prefix string) iter.Seq2[Written, error]
	// RemoveAll removes a file, or all files below a folder, whose name ends in a slash.
	RemoveAll(ctx context.Context, name string) error
	Close() error
}

// state is the folder of an unfinished export, in which it notes what is done.
const state = ".export/"

// folder is a Destination on this machine.
type folder struct {
	path      string
	lock      *os.File
	temporary atomic.Int64 // names that were given
}

// OpenFolder opens a folder to export to, and makes it if it is not there. Only one process
// may do so at a time.
func OpenFolder(dir string) (Destination, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	d, err := ReadFolder(dir)
	if err != nil {
		return nil, err
	}
	f := d.(*folder)
	if errors.Is(syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK) {
		d.Close()
		return nil, fmt.Errorf("another export to %s is under way", dir)
	}
	if err := os.RemoveAll(f.at(state + "tmp")); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// ReadFolder opens the folder of an export to read it.
func ReadFolder(dir string) (Destination, error) {
	lock, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if info, err := lock.Stat(); err != nil || !info.IsDir() {
		lock.Close()
		return nil, cmp.Or(err, fmt.Errorf("%s is no folder", dir))
	}
	return &folder{path: dir, lock: lock}, nil
}

func (d *folder) String() string { return d.path }

func (d *folder) Close() error { return d.lock.Close() }

// at is where a file lies. An *os.Root would open each folder on the way to it, which takes
// as long as writing a small file.
func (d *folder) at(name string) string { return filepath.Join(d.path, filepath.FromSlash(name)) }

// OpenFile, Rename and Remove are what atomicfile needs.
func (d *folder) OpenFile(name string, flag int, mode os.FileMode) (*os.File, error) {
	return os.OpenFile(d.at(name), flag, mode)
}

func (d *folder) Rename(from, to string) error { return os.Rename(d.at(from), d.at(to)) }

func (d *folder) Remove(name string) error { return os.Remove(d.at(name)) }

func (d *folder) Create(ctx context.Context, name string, _ int64, write func(io.Writer) error) error {
	return d.create(ctx, name, !canSyncAll, write)
}

func (d *folder) Commit(ctx context.Context, name string, write func(io.Writer) error) error {
	if err := syncAll(d.lock); err != nil {
		return d.failed(err)
	}
	if err := d.create(ctx, name, true, write); err != nil {
		return err
	}
	dir, err := os.Open(d.at(path.Dir(name)))
	if err != nil {
		return d.failed(err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return d.failed(err)
	}
	return nil
}

// Claim needs no more: only one process has the lock.
func (d *folder) Claim(ctx context.Context, name string, text []byte) ([]byte, error) {
	return text, d.Commit(ctx, name, func(w io.Writer) error { _, err := w.Write(text); return err })
}

func (d *folder) create(ctx context.Context, name string, sync bool, write func(io.Writer) error) error {
	for _, dir := range []string{state + "tmp", path.Dir(name)} {
		if err := os.MkdirAll(d.at(dir), 0o755); err != nil {
			return d.failed(err)
		}
	}
	target := &writing{ctx: ctx}
	err := atomicfile.Create(d, state+"tmp/"+strconv.FormatInt(d.temporary.Add(1), 10), name, func(f *os.File) error {
		target.file = f
		if err := write(target); err != nil || !sync {
			return err
		}
		target.failed = f.Sync()
		return target.failed
	})
	if target.failed != nil {
		return d.failed(target.failed)
	}
	return err
}

// failed leaves the names of temporary files out: a person knows the folder.
func (d *folder) failed(err error) error {
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		err = number
	}
	return fmt.Errorf("write to %s: %w", d.path, err)
}

// writing is a file that is being written. It ends with its context.
type writing struct {
	ctx    context.Context
	file   *os.File
	failed error
}

func (w *writing) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.file.Write(p)
	if err != nil {
		w.failed = err
	}
	return n, err
}

func (d *folder) Read(ctx context.Context, name string, use func(io.Reader) error) error {
	f, err := os.Open(d.at(name))
	if err != nil {
		return err
	}
	defer f.Close()
	return use(&reading{ctx, f})
}

// reading is a file that is being read. It ends with its context.
type reading struct {
	ctx  context.Context
	file *os.File
}

func (r *reading) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.file.Read(p)
}

func (d *folder) List(ctx context.Context, prefix string) iter.Seq2[Written, error] {
	return func(yield func(Written, error) bool) {
		from := path.Dir(prefix + "x")
		err := fs.WalkDir(os.DirFS(d.path), from, func(name string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err = errors.Join(err, ctx.Err()); err != nil {
				return err
			}
			if entry.IsDir() || !strings.HasPrefix(name, prefix) {
				return nil
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			if !yield(Written{Name: name, Size: info.Size()}, nil) {
				return filepath.SkipAll
			}
			return nil
		})
		if err != nil {
			yield(Written{}, err)
		}
	}
}

func (d *folder) RemoveAll(_ context.Context, name string) error { return os.RemoveAll(d.at(name)) }

// prefix is a Destination in a bucket.
type prefix struct {
	store  *store.Store
	prefix string // empty, or with a slash at its end
}

// OpenPrefix opens a place in a bucket.
func OpenPrefix(s *store.Store, name string) Destination {
	if name != "" && !strings.HasSuffix(name, "/") {
		name += "/"
	}
	return &prefix{s, name}
}

func (d *prefix) String() string {
	return "s3://" + d.store.Bucket() + "/" + strings.TrimSuffix(d.prefix, "/")
}

func (d *prefix) Close() error { return nil }

func (d *prefix) Create(ctx context.Context, name string, size int64, write func(io.Writer) error) error {
	_, err := d.store.Upload(ctx, d.prefix+name, size, write)
	return err
}

// Commit needs no more: a bucket keeps what it has answered for.
func (d *prefix) Commit(ctx context.Context, name string, write func(io.Writer) error) error {
	return d.Create(ctx, name, 0, write)
}

func (d *prefix) Claim(ctx context.Context, name string, text []byte) ([]byte, error) {
	return d.store.PutNew(ctx, d.prefix+name, text)
}

func (d *prefix) Read(ctx context.Context, name string, use func(io.Reader) error) error {
	err := d.store.Stream(ctx, d.prefix+name, func(from io.Reader, _ store.Object) error { return use(from) })
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return err
}

func (d *prefix) List(ctx context.Context, below string) iter.Seq2[Written, error] {
	return func(yield func(Written, error) bool) {
		for o, err := range d.store.List(ctx, d.prefix+below, "") {
			if !yield(Written{Name: strings.TrimPrefix(o.Key, d.prefix), Size: o.Size}, err) || err != nil {
				return
			}
		}
	}
}

func (d *prefix) RemoveAll(ctx context.Context, name string) error {
	if !strings.HasSuffix(name, "/") {
		return d.store.Delete(ctx, []string{d.prefix + name})
	}
	var keys []string
	for o, err := range d.store.List(ctx, d.prefix+name, "") {
		if err != nil {
			return err
		}
		if keys = append(keys, o.Key); len(keys) == 1000 {
			if err := d.store.Delete(ctx, keys); err != nil {
				return err
			}
			keys = keys[:0]
		}
	}
	return d.store.Delete(ctx, keys)
}
