package dataset

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	_ "image/gif"  // pictures of this format decode
	_ "image/jpeg" // pictures of this format decode
	_ "image/png"  // pictures of this format decode
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

const (
	inMemory  = 8 << 20  // bytes of an object that is read into memory; a larger one goes through a temporary file
	memory    = 64 << 20 // bytes of all objects in memory
	maxPixels = 64 << 20 // of a picture that is decoded: four times 4096 by 4096
	readTries = 3        // of one object whose connection breaks
)

// readContents reads what the receipts vouch for. Receipts that the journal has,
// unchanged and for the same samples, are not read again.
func (i *inspection) readContents(ctx context.Context) error {
	if !i.Deep {
		return nil
	}
	var names []store.ReceiptName
	for _, e := range i.receipts {
		if e.live > 0 {
			names = append(names, e.name)
		}
	}
	c := &contents{store: i.Store, trust: i.Trust, memory: semaphore.NewWeighted(memory)}
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	done := 0
	finished := func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		done++
		i.progress("contents of "+i.name, done, len(names))
	}
	for r, err := range i.Store.ReadReceipts(limited, names) {
		if err != nil {
			return errors.Join(group.Wait(), err)
		}
		place := i.view.order[r.ReadFrom]
		if place == 0 || contradiction(r, i.name) != "" {
			return errors.Join(group.Wait(), fmt.Errorf("%s was changed while it was checked: somebody is at work on these samples", r.ReadFrom))
		}
		e := &i.receipts[place-1]
		live := slices.DeleteFunc(slices.Clone(r.Samples), func(s store.ReceiptSample) bool { return !i.view.Describes(r, s.Index) })
		entry := journalEntry(r, live)
		if e.hurt == nil && i.Journal.has(entry) {
			i.report.Resumed++
			finished()
			continue
		}
		group.Go(func() error {
			found, undecodable, err := c.check(limited, r, live, e.hurt)
			if err != nil {
				return err
			}
			whole := e.hurt == nil && len(found) == 0
			i.note(e, found...)
			i.mu.Lock()
			for _, u := range undecodable {
				whole = false
				i.report.add(u.damage)
				i.report.plan.Replace = append(i.report.plan.Replace, u.index)
			}
			i.mu.Unlock()
			if whole {
				if err := i.Journal.add(entry); err != nil {
					return err
				}
			}
			finished()
			return nil
		})
	}
	return group.Wait()
}

// digest is the SHA-256 of a receipt.
func digest(r store.Receipt) string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings, numbers and times of a receipt that was read
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// contents checks the bytes of objects.
type contents struct {
	store  *store.Store
	trust  bool
	memory *semaphore.Weighted
}

// undecodable is a sample whose bytes are what its receipt says and that cannot be
// looked at all the same: the generator wrote it so.
type undecodable struct {
	index  int
	damage Damage
}

// check reads the objects of the samples that a receipt describes, but for those
// known to be hurt.
func (c *contents) check(ctx context.Context, r store.Receipt, live []store.ReceiptSample, hurt map[string]bool) ([]Damage, []undecodable, error) {
	if r.Shard != nil {
		if hurt[r.Shard.Key] {
			return nil, nil, nil
		}
		return c.checkShard(ctx, r, live)
	}
	type item struct {
		index int
		id    string
		key   string
		file  store.ReceiptFile
	}
	var items []item
	for _, s := range live {
		for _, f := range s.Files {
			if key := task.FileKey(r.Generator, s.ID, f.Name); !hurt[key] {
				items = append(items, item{s.Index, s.ID, key, f})
			}
		}
	}
	results := make([]verdict, len(items))
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for n, it := range items {
		group.Go(func() (err error) {
			results[n], err = c.checkObject(limited, it.id, it.key, it.file)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	var found []Damage
	var bad []undecodable
	for n, v := range results {
		switch d := (Damage{v.kind, items[n].key, v.detail}); v.kind {
		case "":
		case Undecodable:
			bad = append(bad, undecodable{items[n].index, d})
		default:
			found = append(found, d)
		}
	}
	return found, bad, nil
}

// verdict on one file; no kind means that it is whole.
type verdict struct {
	kind   Kind
	detail string
}

func (c *contents) checkObject(ctx context.Context, id, key string, f store.ReceiptFile) (verdict, error) {
	if c.trust && !isPicture(f.Name) {
		o, err := c.store.Head(ctx, key)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return verdict{kind: MissingObject}, nil
		case err != nil:
			return verdict{}, err
		case o.SHA256 == f.SHA256: // the bytes that the worker has checked
			return verdict{}, nil
		case o.SHA256 != "":
			return verdict{WrongHash, hashes(o.SHA256, f.SHA256)}, nil
		}
	}
	for try := 1; ; try++ {
		v, err := c.readObject(ctx, id, key, f)
		if err == nil || ctx.Err() != nil || try == readTries {
			return v, err
		}
	}
}

func hashes(is, should string) string {
	return fmt.Sprintf("its SHA-256 is %.12s…, its receipt says %.12s…", is, should)
}

func (c *contents) readObject(ctx context.Context, id, key string, f store.ReceiptFile) (verdict, error) {
	size := min(f.Size, inMemory)
	if err := c.memory.Acquire(ctx, size); err != nil {
		return verdict{}, err
	}
	defer c.memory.Release(size)
	body, o, err := c.store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return verdict{kind: MissingObject}, nil
	}
	if err != nil {
		return verdict{}, err
	}
	defer body.Close()
	if o.Size != f.Size {
		return verdict{WrongSize, sizes(o.Size, f.Size)}, nil
	}
	v, err := examine(body, id, f)
	if err != nil {
		return v, fmt.Errorf("read %s: %w", key, err)
	}
	return v, nil
}

// examine reads a file of the sample id and judges it. The error is of the reading.
func examine(from io.Reader, id string, f store.ReceiptFile) (verdict, error) {
	hash := sha256.New()
	from = io.TeeReader(io.LimitReader(from, f.Size), hash)
	var data io.ReadSeeker
	if f.Size <= inMemory {
		text := make([]byte, f.Size)
		if _, err := io.ReadFull(from, text); err != nil {
			return verdict{}, err
		}
		data = bytes.NewReader(text)
	} else {
		spool, err := os.CreateTemp("", "vm-dataset-verify-")
		if err != nil {
			return verdict{}, err
		}
		defer spool.Close()
		if err := os.Remove(spool.Name()); err != nil {
			return verdict{}, err
		}
		if n, err := io.Copy(spool, from); err != nil || n != f.Size {
			return verdict{}, errors.Join(err, fmt.Errorf("%d of %d bytes came", n, f.Size))
		}
		data = spool
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != f.SHA256 {
		return verdict{WrongHash, hashes(sum, f.SHA256)}, nil
	}
	wrong, err := sample.Whole(id, f.Name, data, f.Size)
	if err != nil {
		return verdict{}, err
	}
	if wrong == "" && isPicture(f.Name) {
		wrong = decode(data)
	}
	if wrong != "" {
		return verdict{Undecodable, wrong}, nil
	}
	return verdict{}, nil
}

func isPicture(name string) bool {
	return slices.Contains([]string{".png", ".jpg", ".jpeg", ".gif"}, path.Ext(name))
}

// decode decodes every pixel of a picture and returns what is wrong with it, or "".
func decode(data io.ReadSeeker) string {
	for _, step := range []func(io.Reader) error{
		func(r io.Reader) error {
			head, _, err := image.DecodeConfig(r)
			if err == nil && head.Width*head.Height > maxPixels {
				return fmt.Errorf("has %d by %d pixels, more than are decoded", head.Width, head.Height)
			}
			return err
		},
		func(r io.Reader) error { _, _, err := image.Decode(r); return err },
	} {
		if _, err := data.Seek(0, io.SeekStart); err != nil {
			return err.Error()
		}
		if err := step(bufio.NewReader(data)); err != nil {
			return err.Error()
		}
	}
	return ""
}

// checkShard streams a shard: its bytes must be the receipt's, and its members
// just the files of the samples it was written for.
func (c *contents) checkShard(ctx context.Context, r store.Receipt, live []store.ReceiptSample) ([]Damage, []undecodable, error) {
	if err := c.memory.Acquire(ctx, inMemory); err != nil {
		return nil, nil, err
	}
	defer c.memory.Release(inMemory)
	for try := 1; ; try++ {
		d, bad, err := c.readShard(ctx, r, live)
		if err == nil && d != nil {
			return []Damage{*d}, bad, nil
		}
		if err == nil || ctx.Err() != nil || try == readTries {
			return nil, bad, err
		}
	}
}

func (c *contents) readShard(ctx context.Context, r store.Receipt, live []store.ReceiptSample) (*Damage, []undecodable, error) {
	key := r.Shard.Key
	body, o, err := c.store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return &Damage{Kind: MissingObject, Key: key}, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer body.Close()
	if o.Size != r.Shard.Size {
		return &Damage{WrongSize, key, sizes(o.Size, r.Shard.Size)}, nil, nil
	}
	hash := sha256.New()
	counted := &counter{from: io.TeeReader(body, hash)}
	bad, wrong := readMembers(counted, r, live)
	if _, err := io.Copy(io.Discard, counted); err != nil || counted.n != o.Size {
		return nil, nil, fmt.Errorf("read %s: %w", key, errors.Join(err, counted.failed, fmt.Errorf("%d of %d bytes came", counted.n, o.Size)))
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != r.Shard.SHA256 {
		detail := hashes(sum, r.Shard.SHA256)
		if wrong != "" {
			detail += ", and it " + wrong
		}
		return &Damage{WrongHash, key, detail}, nil, nil
	}
	if wrong != "" {
		return &Damage{BadShard, key, "it " + wrong}, bad, nil
	}
	return nil, bad, nil
}

// counter counts what is read and keeps the error that ended it.
type counter struct {
	from   io.Reader
	n      int64
	failed error
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.failed = err
	}
	return n, err
}

// readMembers reads an archive and says what is wrong with it, or "". Samples that
// the receipt no longer describes may differ; a shard that was not written for
// just this receipt may hold others.
func readMembers(from io.Reader, r store.Receipt, live []store.ReceiptSample) (bad []undecodable, wrong string) {
	type member struct {
		index int
		id    string
		file  store.ReceiptFile
		live  bool
	}
	want := map[string]member{}
	for _, s := range r.Samples {
		for _, f := range s.Files {
			want[s.ID+"/"+f.Name] = member{s.Index, s.ID, f, slices.ContainsFunc(live, func(l store.ReceiptSample) bool { return l.Index == s.Index })}
		}
	}
	unpacked, err := gzip.NewReader(from)
	if err != nil {
		return nil, "is no gzip file"
	}
	archive := tar.NewReader(unpacked)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return bad, "cannot be unpacked: " + err.Error()
		}
		m, named := want[h.Name]
		switch {
		case h.Typeflag != tar.TypeReg:
			return bad, fmt.Sprintf("holds %q, which is no plain file", h.Name)
		case !named && r.OwnsShard():
			return bad, fmt.Sprintf("holds %q, which its receipt does not name, or holds it twice", h.Name)
		case !named:
			continue
		}
		delete(want, h.Name)
		if h.Size != m.file.Size {
			return bad, fmt.Sprintf("holds %q with %d bytes, its receipt says %d", h.Name, h.Size, m.file.Size)
		}
		v, err := examine(archive, m.id, m.file)
		switch {
		case err != nil:
			return bad, fmt.Sprintf("cannot be unpacked at %q: %v", h.Name, err)
		case v.kind == Undecodable && m.live:
			bad = append(bad, undecodable{m.index, Damage{Undecodable, r.Shard.Key, h.Name + ": " + v.detail}})
		case v.kind != "" && v.kind != Undecodable:
			return bad, fmt.Sprintf("holds %q with other bytes", h.Name)
		}
	}
	if len(want) > 0 {
		return bad, fmt.Sprintf("lacks %q", slices.Min(slices.Collect(maps.Keys(want))))
	}
	if n, err := io.Copy(io.Discard, unpacked); err != nil || n > 0 {
		return bad, "does not end where its archive does"
	}
	return bad, ""
}
