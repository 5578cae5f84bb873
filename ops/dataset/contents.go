package dataset

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	_ "image/gif"  // pictures of this format decode
	_ "image/jpeg" // pictures of this format decode
	_ "image/png"  // a picture of this format may have another's name
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/journal"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

const (
	decoding = 48 << 20 // bytes of all pictures that are decoded as a whole; a larger one is decoded alone
	perPixel = 16       // bytes, of one that is: a progressive JPEG keeps its coefficients, too
)

// contents reads an object of a receipt and returns what is wrong with it, or an error of the store or this machine.
func (i *inspection) contents(ctx context.Context, o object) (found []Damage, err error) {
	err = i.read(ctx, o, &found)
	if damage, ok := errors.AsType[Damage](err); ok {
		return append(found, damage), nil
	}
	if errors.Is(err, store.ErrNotFound) {
		return []Damage{{Kind: MissingObject, Key: o.key}}, nil
	}
	return found, err
}

// read reads an object. What is wrong with it is a Damage, or samples that cannot be decoded.
func (i *inspection) read(ctx context.Context, o object, undecodable *[]Damage) error {
	if i.Trust && o.receipt.Shard == nil && !isPicture(o.file.Name) {
		there, err := i.Store.Head(ctx, o.key)
		switch {
		case err != nil || there.SHA256 == o.file.SHA256: // the bytes that the worker has checked
			return err
		case there.SHA256 != "" && there.Size == o.size:
			return wrongHash(o.key, there.SHA256, o.file.SHA256)
		}
	}
	return i.Store.Stream(ctx, o.key, func(from io.Reader, there store.Object) error {
		*undecodable = nil // of a connection that broke
		switch {
		case there.Size != o.size:
			return wrongSize(o.key, there.Size, o.size)
		case o.receipt.Shard == nil:
			return i.file(ctx, from, *o.sample, *o.file, o.key)
		}
		return i.shard(ctx, from, *o.receipt, undecodable)
	})
}

// shard reads a shard: its bytes must be the receipt's, and its members just the files of its samples.
func (i *inspection) shard(ctx context.Context, from io.Reader, r store.Receipt, undecodable *[]Damage) error {
	hash := sha256.New()
	from = io.TeeReader(from, hash)
	err := ReadShard(from, r, func(s store.ReceiptSample, f store.ReceiptFile, from io.Reader) error {
		err := i.file(ctx, from, s, f, r.Shard.Key)
		d, damaged := errors.AsType[Damage](err)
		switch {
		case !damaged:
			return err
		case d.Kind == WrongHash:
			return badShard(r, "holds %q with other bytes", s.ID+"/"+f.Name)
		case i.view.covers(s.Index) && r.Describes(s.Index): // else it was replaced since
			d.Detail = s.ID + "/" + f.Name + ": " + d.Detail
			*undecodable = append(*undecodable, d)
		}
		return nil
	})
	bad, damaged := errors.AsType[Damage](err)
	if err != nil && !damaged {
		return err
	}
	if _, err := io.Copy(io.Discard, from); err != nil {
		return err
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != r.Shard.SHA256 {
		d := wrongHash(r.Shard.Key, sum, r.Shard.SHA256)
		if *undecodable = nil; damaged {
			d.Detail += ", and " + bad.Detail
		}
		return d
	}
	return err
}

// file reads a file of a sample, from the object of a key. What is wrong with it is a Damage. It goes through the
// temporary folder: videos are not read from front to back, and may be large.
func (i *inspection) file(ctx context.Context, from io.Reader, s store.ReceiptSample, f store.ReceiptFile,
	key string) error {
	hash := sha256.New()
	source := &sample.Source{Reader: io.TeeReader(io.LimitReader(from, f.Size), hash)}
	data, err := os.CreateTemp("", "vm-dataset-verify-")
	if err == nil {
		defer data.Close()
		if err = os.Remove(data.Name()); err == nil {
			_, err = io.Copy(data, source)
		}
	}
	if source.Failed != nil {
		return source.Failed
	}
	if err != nil {
		return fmt.Errorf("objects go through the temporary folder, and %s cannot be used: %w: "+
			"make room there, or name another folder with TMPDIR", os.TempDir(), err)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != f.SHA256 {
		return wrongHash(key, sum, f.SHA256)
	}
	wrong, err := sample.Check(s.ID, f.Name, data, f.Size)
	if err == nil && wrong == "" && isPicture(f.Name) {
		wrong, err = i.decode(ctx, data, path.Ext(f.Name))
	}
	if err != nil {
		return fmt.Errorf("read what was downloaded of %s: %w", f.Name, err)
	}
	if wrong != "" {
		return Damage{Undecodable, key, wrong, s.Index}
	}
	return nil
}

func isPicture(name string) bool {
	return slices.Contains([]string{".png", ".jpg", ".jpeg", ".gif"}, path.Ext(name))
}

// decode decodes every pixel of a picture and returns what is wrong with it, or "". The error is of the reading.
func (i *inspection) decode(ctx context.Context, data *os.File, extension string) (wrong string, err error) {
	if _, err := data.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	if extension == ".png" {
		return sample.PNGPixels(data)
	}
	from := &sample.Source{Reader: data}
	head, _, bad := image.DecodeConfig(bufio.NewReader(from))
	switch {
	case from.Failed != nil:
		return "", from.Failed
	case bad != nil:
		return bad.Error(), nil
	case head.Width > sample.MaxPixels/max(head.Height, 1):
		return fmt.Sprintf("has %d by %d pixels, more than are decoded", head.Width, head.Height), nil
	}
	weight := min(int64(head.Width)*int64(head.Height)*perPixel, decoding)
	if err := i.decoding.Acquire(ctx, weight); err != nil {
		return "", err
	}
	defer i.decoding.Release(weight)
	if _, err := data.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	if _, _, bad = image.Decode(bufio.NewReader(from)); bad == nil || from.Failed != nil {
		return "", from.Failed
	}
	return bad.Error(), nil
}

func badShard(r store.Receipt, format string, args ...any) error {
	return Damage{Kind: BadShard, Key: r.Shard.Key, Detail: "it " + fmt.Sprintf(format, args...)}
}

// ReadShard reads a shard and calls use with each of its files. They must be just the plain files of the receipt, with
// their sizes: none can leave a folder, be a link, or unpack to more. What is wrong is a Damage, all else use's error.
func ReadShard(from io.Reader, r store.Receipt,
	use func(s store.ReceiptSample, f store.ReceiptFile, from io.Reader) error) error {
	type member struct {
		sample store.ReceiptSample
		file   store.ReceiptFile
	}
	want := map[string]member{}
	for _, s := range r.Samples {
		for _, f := range s.Files {
			want[s.ID+"/"+f.Name] = member{s, f}
		}
	}
	unpacked, err := gzip.NewReader(from)
	if err != nil {
		return badShard(r, "is no gzip file")
	}
	archive := tar.NewReader(unpacked)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return badShard(r, "is damaged: %v", err)
		}
		m, named := want[h.Name]
		switch {
		case h.Typeflag != tar.TypeReg:
			return badShard(r, "holds %q, which is no plain file", h.Name)
		case !named:
			return badShard(r, "holds %q, which its receipt does not name, or holds it twice", h.Name)
		case h.Size != m.file.Size:
			return badShard(r, "holds %q with %d bytes, its receipt says %d", h.Name, h.Size, m.file.Size)
		}
		delete(want, h.Name)
		content := &sample.Source{Reader: archive}
		err = use(m.sample, m.file, content)
		if content.Failed != nil {
			return badShard(r, "is damaged at %q: %v", h.Name, content.Failed)
		}
		if err != nil {
			return err
		}
	}
	if len(want) > 0 {
		return badShard(r, "lacks %q", slices.Min(slices.Collect(maps.Keys(want))))
	}
	if n, err := io.Copy(io.Discard, unpacked); err != nil || n > 0 {
		return badShard(r, "does not end where its archive does")
	}
	return nil
}

// JournalAge is how long what an interrupted check has read counts as read.
const JournalAge = 7 * 24 * time.Hour

// Journal keeps the cells whose objects a check of contents has found healthy, a line with key and ETag for each, so
// that an interrupted check continues. It trusts that objects of the same size do not change. A nil one keeps nothing.
type Journal struct {
	file *journal.Journal
	done map[string]bool
}

// ErrBusy: another process uses the journal.
var ErrBusy = errors.New("another check of the same samples is running")

// OpenJournal opens a journal, or begins it anew if fresh is wanted, or it is about another check or too old.
func OpenJournal(path, about string, fresh bool) (*Journal, error) {
	file, text, err := journal.Open(path, ErrBusy)
	if err != nil {
		return nil, err
	}
	j := &Journal{file: file, done: map[string]bool{}}
	lines := strings.Split(string(text), "\n")
	began, of, _ := strings.Cut(lines[0], " ")
	at, err := time.Parse(time.RFC3339, began)
	if age := time.Since(at); err != nil || fresh || of != about || age > JournalAge || age < 0 {
		if err := file.Rewrite(fmt.Appendln(nil, time.Now().UTC().Format(time.RFC3339), about)); err != nil {
			return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), file.Close())
		}
		return j, nil
	}
	for _, line := range lines[1:] {
		j.done[line] = true
	}
	return j, nil
}

func (j *Journal) has(c *store.Cell) bool { return j != nil && j.done[c.Key()+" "+c.ETag()] }

func (j *Journal) add(c *store.Cell) error {
	if j == nil {
		return nil
	}
	return j.file.Append(fmt.Appendln(nil, c.Key(), c.ETag()))
}

// Close keeps what was done for the next time, unless the check has finished.
func (j *Journal) Close(finished bool) error {
	switch {
	case j == nil:
		return nil
	case finished:
		return j.file.Remove()
	}
	return j.file.Close()
}
