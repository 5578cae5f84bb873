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
	"strings"
	"syscall"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/journal"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// Destination is where an export is written: a folder, or a prefix of a bucket. Names have slashes. Reading a file that
// is not there fails with fs.ErrNotExist.
type Destination interface {
	fmt.Stringer
	// Create writes a file, or replaces it. The size is an estimate in bytes. If write fails, there is no such file.
	Create(ctx context.Context, name string, size int64, write func(io.Writer) error) error
	// Commit is Create of a file that vouches for others: a crash or power failure leaves all of it or nothing, and only
	// with all files that were created before it. It is on the disk when Commit returns.
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
	path string
	lock *os.File
}

// OpenFolder opens a folder to export to, and makes it if it is not there. Only one process may do so at a time.
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

func (d *folder) Close() error { return journal.Unlock(d.lock) }

// at is where a file lies. An *os.Root would open each folder on the way: as long as writing a small file takes.
func (d *folder) at(name string) string { return filepath.Join(d.path, filepath.FromSlash(name)) }

// Create writes the file in its place: of a process that is killed, half of it may be left, without a Commit.
func (d *folder) Create(ctx context.Context, name string, _ int64, write func(io.Writer) error) error {
	return d.create(ctx, name, !canSyncAll, write)
}

func (d *folder) Commit(ctx context.Context, name string, write func(io.Writer) error) error {
	temporary := state + "tmp/" + path.Base(name)
	if err := d.create(ctx, temporary, true, write); err != nil {
		return err
	}
	to := d.at(name)
	if err := cmp.Or(os.MkdirAll(filepath.Dir(to), 0o755), os.Rename(d.at(temporary), to)); err != nil {
		return d.failed(err)
	}
	dir, err := os.Open(filepath.Dir(to))
	if err == nil {
		defer dir.Close()
		err = dir.Sync()
	}
	return d.failed(err)
}

// Claim needs no more: only one process has the lock.
func (d *folder) Claim(ctx context.Context, name string, text []byte) ([]byte, error) {
	return text, d.Commit(ctx, name, func(w io.Writer) error { _, err := w.Write(text); return err })
}

// create writes a file; with sync it and all before it are on the disk then. Nothing is left of one that fails.
func (d *folder) create(ctx context.Context, name string, sync bool, write func(io.Writer) error) error {
	at := d.at(name)
	f, err := openNew(at)
	if err != nil {
		return d.failed(err)
	}
	target := &writing{ctx: ctx, file: f}
	err = write(target)
	if err == nil && sync {
		target.failed = syncAll(f)
	}
	target.failed = cmp.Or(target.failed, f.Close())
	if err = cmp.Or(d.failed(target.failed), err); err != nil {
		_ = os.Remove(at)
	}
	return err
}

// openNew creates a file in the place of another one that may be there, and its folder.
func openNew(at string) (*os.File, error) {
	const flags = os.O_CREATE | os.O_EXCL | os.O_WRONLY
	f, err := os.OpenFile(at, flags, 0o644)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = os.MkdirAll(filepath.Dir(at), 0o755)
	case errors.Is(err, fs.ErrExist): // it may have other names
		err = os.Remove(at)
	default:
		return f, err
	}
	if err != nil {
		return nil, err
	}
	return os.OpenFile(at, flags, 0o644)
}

// failed leaves the names of temporary files out: a person knows the folder.
func (d *folder) failed(err error) error {
	if err == nil {
		return nil
	}
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		err = number
	}
	return fmt.Errorf("write to %s: %w", d.path, err)
}

// writing is a file that is being written. It ends with its context.
type writing struct {
	ctx    context.Context
	file   *os.File
	n      int64 // bytes that were written
	begun  int64 // of them, those that are on their way to the disk
	failed error
}

// writeBack is after how many bytes of a file the disk begins to write them, so that its sync has less to wait for.
const writeBack = 8 << 20

func (w *writing) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.file.Write(p)
	if err != nil {
		w.failed = err
	}
	if w.n += int64(n); w.n-w.begun >= writeBack {
		beginSync(w.file, w.begun, w.n-w.begun)
		w.begun = w.n
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
		keys = append(keys, o.Key)
	}
	return d.store.Delete(ctx, keys)
}
