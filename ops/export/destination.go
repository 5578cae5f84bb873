package export

import (
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
	// Read has use read a file, anew if a connection breaks.
	Read(ctx context.Context, name string, use func(io.Reader) error) error
	// List returns the files whose names have a prefix, and their sizes.
	List(ctx context.Context, prefix string) iter.Seq2[Written, error]
	// Remove removes all files below a folder.
	Remove(ctx context.Context, folder string) error
	Close() error
}

// state is the folder of an unfinished export, in which it notes what is done.
const state = ".export/"

// folder is a Destination on this machine.
type folder struct {
	path      string
	root      *os.Root // nothing is written outside it, not through links in it either
	lock      *os.File
	temporary atomic.Int64 // names that were given
}

// OpenFolder opens a folder to export to, and makes it if it is not there. Only one process
// may do so at a time.
func OpenFolder(dir string) (Destination, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	d, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	if errors.Is(syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK) {
		d.Close()
		return nil, fmt.Errorf("another export to %s is under way", dir)
	}
	if err := d.root.RemoveAll(state + "tmp"); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// ReadFolder opens the folder of an export to read it.
func ReadFolder(dir string) (Destination, error) { return openFolder(dir) }

func openFolder(dir string) (*folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	d := &folder{path: dir, root: root}
	if d.lock, err = root.Open("."); err != nil {
		root.Close()
		return nil, err
	}
	return d, nil
}

func (d *folder) String() string { return d.path }

func (d *folder) Close() error { return errors.Join(d.lock.Close(), d.root.Close()) }

func (d *folder) Create(ctx context.Context, name string, _ int64, write func(io.Writer) error) error {
	err := errors.Join(d.root.MkdirAll(state+"tmp", 0o755), d.root.MkdirAll(path.Dir(name), 0o755))
	if err != nil {
		return d.failed(err)
	}
	target := &writing{ctx: ctx}
	err = atomicfile.Create(d.root, state+"tmp/"+strconv.FormatInt(d.temporary.Add(1), 10), name,
		func(f *os.File) error {
			target.file = f
			return write(target)
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
	f, err := d.root.Open(name)
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
		err := fs.WalkDir(d.root.FS(), from, func(name string, entry fs.DirEntry, err error) error {
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

func (d *folder) Remove(_ context.Context, name string) error {
	return d.root.RemoveAll(strings.TrimSuffix(name, "/"))
}

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

func (d *prefix) Remove(ctx context.Context, folder string) error {
	var keys []string
	for o, err := range d.store.List(ctx, d.prefix+folder, "") {
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
