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
)

const (
	inMemory = 8 << 20  // bytes of an object that is read into memory; a larger one goes through a temporary file
	memory   = 64 << 20 // bytes of all objects in memory
	decoding = 48 << 20 // bytes of all pictures that are decoded as a whole; a larger one is decoded alone
	perPixel = 16       // bytes, of one that is: a progressive JPEG keeps its coefficients, too
)

// readContents reads what the receipts vouch for. Receipts that the journal has,
// unchanged and for the same samples, are not read again.
func (i *inspection) readContents(ctx context.Context) error {
	if !i.Deep {
		return nil
	}
	var names []store.CellName
	total := 0
	for _, e := range i.receipts {
		if e.live == 0 {
			continue
		}
		if total++; len(names) == 0 || names[len(names)-1].Key != e.cell.Key {
			names = append(names, e.cell)
		}
	}
	c := &contents{store: i.Store, trust: i.Trust, memory: semaphore.NewWeighted(memory),
		decoding: semaphore.NewWeighted(decoding)}
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	done := 0
	finished := func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		done++
		i.progress("contents of "+i.name, done, total)
	}
	for cell, err := range i.Store.Cells(limited, names) {
		if err != nil {
			return errors.Join(group.Wait(), err)
		}
		for _, r := range cell.Receipts {
			if err := i.readContentsOf(limited, group, c, r, finished); err != nil {
				return errors.Join(group.Wait(), err)
			}
		}
	}
	return group.Wait()
}

// readContentsOf has the objects of one receipt read.
func (i *inspection) readContentsOf(ctx context.Context, group *errgroup.Group, c *contents, r store.Receipt,
	finished func()) error {
	place := i.view.order[r.ID()]
	if place == 0 {
		return fmt.Errorf("%s was changed while it was checked: somebody is at work on these samples", r.ReadFrom)
	}
	e := &i.receipts[place-1]
	live := slices.DeleteFunc(slices.Clone(r.Current),
		func(s store.ReceiptSample) bool { return s.Index < i.view.Range.Start || s.Index >= i.view.Range.End })
	if len(live) == 0 {
		return nil
	}
	entry := journalEntry(r, live)
	if e.hurt == nil && i.Journal.has(entry) {
		i.report.Resumed++
		finished()
		return nil
	}
	group.Go(func() error {
		found, undecodable, err := c.check(ctx, r, live, e.hurt)
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
	return nil
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
	store            *store.Store
	trust            bool
	memory, decoding *semaphore.Weighted // decoding is taken second
}

// undecodable is a sample whose bytes are what its receipt says and that cannot be
// looked at all the same: the generator wrote it so.
type undecodable struct {
	index  int
	damage Damage
}

// check reads the objects of the samples that a receipt describes, but for those
// known to be hurt.
func (c *contents) check(ctx context.Context, r store.Receipt, live []store.ReceiptSample,
	hurt map[string]bool) ([]Damage, []undecodable, error) {
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
			if key := r.Dataset.FileKey(r.Generator, s.ID, f.Name); !hurt[key] {
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
	size := min(f.Size, inMemory)
	if err := c.memory.Acquire(ctx, size); err != nil {
		return verdict{}, err
	}
	defer c.memory.Release(size)
	var v verdict
	err := c.store.Stream(ctx, key, func(from io.Reader, o store.Object) (err error) {
		if o.Size != f.Size {
			v = verdict{WrongSize, sizes(o.Size, f.Size)}
			return nil
		}
		v, err = c.examine(ctx, from, id, f)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return verdict{kind: MissingObject}, nil
	}
	return v, err
}

func hashes(is, should string) string {
	return fmt.Sprintf("its SHA-256 is %.12s…, its receipt says %.12s…", is, should)
}

// hereError says that this machine failed, and nothing in the bucket.
type hereError struct{ error }

func (e *hereError) Unwrap() error { return e.error }

// temporaryFile keeps a large object until it is closed.
func temporaryFile(from io.Reader, size int64) (*os.File, error) {
	failed := func(err error) error {
		return &hereError{fmt.Errorf(
			"objects of more than %d MiB go through the temporary folder, and %s cannot be used: %w: make room there, or name another folder with TMPDIR", inMemory>>20, os.TempDir(), err)}
	}
	file, err := os.CreateTemp("", "vm-dataset-verify-")
	if err != nil {
		return nil, failed(err)
	}
	source := &sample.Source{Reader: from}
	err = os.Remove(file.Name())
	if err == nil {
		_, err = io.Copy(file, source)
	}
	switch {
	case source.Failed != nil:
		err = source.Failed
	case err != nil:
		err = failed(err)
	case source.N != size:
		err = fmt.Errorf("%d of %d bytes came", source.N, size)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// examine reads a file of the sample id and judges it. The error is of the reading, or a *hereError.
func (c *contents) examine(ctx context.Context, from io.Reader, id string, f store.ReceiptFile) (verdict, error) {
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
		file, err := temporaryFile(from, f.Size)
		if err != nil {
			return verdict{}, err
		}
		defer file.Close()
		data = file
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != f.SHA256 {
		return verdict{WrongHash, hashes(sum, f.SHA256)}, nil
	}
	wrong, err := sample.Whole(id, f.Name, data, f.Size)
	if err == nil && wrong == "" && isPicture(f.Name) {
		wrong, err = c.decode(ctx, data)
	}
	switch {
	case ctx.Err() != nil:
		return verdict{}, ctx.Err()
	case err != nil:
		return verdict{}, &hereError{fmt.Errorf("read what was downloaded of %s: %w", f.Name, err)}
	case wrong != "":
		return verdict{Undecodable, wrong}, nil
	}
	return verdict{}, nil
}

func isPicture(name string) bool {
	return slices.Contains([]string{".png", ".jpg", ".jpeg", ".gif"}, path.Ext(name))
}

// decode decodes every pixel of a picture and returns what is wrong with it, or "".
// The error is of the reading.
func (c *contents) decode(ctx context.Context, data io.ReadSeeker) (wrong string, err error) {
	begin := func() (*sample.Source, error) {
		_, err := data.Seek(0, io.SeekStart)
		return &sample.Source{Reader: data}, err
	}
	from, err := begin()
	if err != nil {
		return "", err
	}
	head, format, bad := image.DecodeConfig(bufio.NewReader(from))
	switch {
	case from.Failed != nil:
		return "", from.Failed
	case bad != nil:
		return bad.Error(), nil
	case head.Width > sample.MaxPixels/max(head.Height, 1):
		return fmt.Sprintf("has %d by %d pixels, more than are decoded", head.Width, head.Height), nil
	}
	if from, err = begin(); err != nil {
		return "", err
	}
	if format == "png" {
		return sample.PNGPixels(from)
	}
	weight := min(int64(head.Width)*int64(head.Height)*perPixel, decoding)
	if err := c.decoding.Acquire(ctx, weight); err != nil {
		return "", err
	}
	defer c.decoding.Release(weight)
	_, _, bad = image.Decode(bufio.NewReader(from))
	if from.Failed != nil || bad == nil {
		return "", from.Failed
	}
	return bad.Error(), nil
}

// checkShard streams a shard: its bytes must be the receipt's, and its members
// just the files of the samples it was written for.
func (c *contents) checkShard(ctx context.Context, r store.Receipt, live []store.ReceiptSample) ([]Damage,
	[]undecodable, error) {
	if err := c.memory.Acquire(ctx, inMemory); err != nil {
		return nil, nil, err
	}
	defer c.memory.Release(inMemory)
	var found []Damage
	var bad []undecodable
	err := c.store.Stream(ctx, r.Shard.Key, func(from io.Reader, o store.Object) (err error) {
		found, bad, err = c.readShard(ctx, from, o, r, live)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return []Damage{{Kind: MissingObject, Key: r.Shard.Key}}, nil, nil
	}
	return found, bad, err
}

func (c *contents) readShard(ctx context.Context, from io.Reader, o store.Object, r store.Receipt,
	live []store.ReceiptSample) ([]Damage, []undecodable, error) {
	key := r.Shard.Key
	if o.Size != r.Shard.Size {
		return []Damage{{WrongSize, key, sizes(o.Size, r.Shard.Size)}}, nil, nil
	}
	hash := sha256.New()
	from = io.TeeReader(from, hash)
	bad, wrong, err := c.readMembers(ctx, from, r, live)
	if err != nil {
		return nil, nil, err
	}
	if _, err := io.Copy(io.Discard, from); err != nil {
		return nil, nil, err
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != r.Shard.SHA256 {
		detail := hashes(sum, r.Shard.SHA256)
		if wrong != "" {
			detail += ", and it " + wrong
		}
		return []Damage{{WrongHash, key, detail}}, nil, nil
	}
	if wrong != "" {
		return []Damage{{BadShard, key, "it " + wrong}}, bad, nil
	}
	return nil, bad, nil
}

// readMembers reads an archive and says what is wrong with it, or "". Samples that
// the receipt no longer describes may differ. The error is of this machine.
func (c *contents) readMembers(ctx context.Context, from io.Reader, r store.Receipt,
	live []store.ReceiptSample) (bad []undecodable, wrong string, err error) {
	type member struct {
		index int
		id    string
		file  store.ReceiptFile
		live  bool
	}
	want := map[string]member{}
	for _, s := range r.Samples {
		for _, f := range s.Files {
			want[s.ID+"/"+f.Name] = member{s.Index, s.ID, f,
				slices.ContainsFunc(live, func(l store.ReceiptSample) bool { return l.Index == s.Index })}
		}
	}
	unpacked, err := gzip.NewReader(from)
	if err != nil {
		return nil, "is no gzip file", nil
	}
	archive := tar.NewReader(unpacked)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return bad, "cannot be unpacked: " + err.Error(), nil
		}
		m, named := want[h.Name]
		switch {
		case h.Typeflag != tar.TypeReg:
			return bad, fmt.Sprintf("holds %q, which is no plain file", h.Name), nil
		case !named:
			return bad, fmt.Sprintf("holds %q, which its receipt does not name, or holds it twice", h.Name), nil
		}
		delete(want, h.Name)
		if h.Size != m.file.Size {
			return bad, fmt.Sprintf("holds %q with %d bytes, its receipt says %d", h.Name, h.Size, m.file.Size), nil
		}
		v, err := c.examine(ctx, archive, m.id, m.file)
		_, here := errors.AsType[*hereError](err)
		switch {
		case ctx.Err() != nil: // not all was looked at
			return nil, "", ctx.Err()
		case here:
			return nil, "", err
		case err != nil:
			return bad, fmt.Sprintf("cannot be unpacked at %q: %v", h.Name, err), nil
		case v.kind == Undecodable && m.live:
			bad = append(bad, undecodable{m.index, Damage{Undecodable, r.Shard.Key, h.Name + ": " + v.detail}})
		case v.kind != "" && v.kind != Undecodable:
			return bad, fmt.Sprintf("holds %q with other bytes", h.Name), nil
		}
	}
	if len(want) > 0 {
		return bad, fmt.Sprintf("lacks %q", slices.Min(slices.Collect(maps.Keys(want)))), nil
	}
	if n, err := io.Copy(io.Discard, unpacked); err != nil || n > 0 {
		return bad, "does not end where its archive does", nil
	}
	return bad, "", nil
}
