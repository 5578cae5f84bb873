package export

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// errStopped says that nobody wants the rest of a shard.
var errStopped = errors.New("stopped")

// shard yields the files of samples of a shard, which both are in the order of their ids. If
// the connection breaks, it is read again up to where it was.
func (s *source) shard(ctx context.Context, r store.Receipt, samples []store.ReceiptSample,
	want func(string) bool) iter.Seq2[[]File, error] {
	return func(yield func([]File, error) bool) {
		done := 0 // samples that were yielded
		err := s.open(ctx, r.Shard.Key, func(from io.Reader) error {
			reader := &shardReader{key: r.Shard.Key, want: want}
			if err := reader.start(from); err != nil {
				return err
			}
			for n, want := range samples {
				if n < done {
					continue
				}
				list, err := reader.sample(want)
				if err != nil {
					closeAll(list)
					return err
				}
				done = n + 1
				if !yield(list, nil) {
					return errStopped
				}
			}
			return nil
		})
		switch {
		case errors.Is(err, store.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
			yield(nil, &DamageError{r.Shard.Key, "is not in the bucket"})
		case err != nil && !errors.Is(err, errStopped):
			yield(nil, err)
		}
	}
}

// shardReader reads the members of a shard, which are sorted by their samples' ids.
type shardReader struct {
	key    string
	want   func(string) bool
	source *sample.Source
	tar    *tar.Reader
	member *tar.Header // that was read last; nil at the end
}

func (r *shardReader) start(from io.Reader) error {
	r.source = &sample.Source{Reader: from}
	unpacked, err := gzip.NewReader(r.source)
	if err != nil {
		return r.damage("is no gzip file")
	}
	r.tar = tar.NewReader(unpacked)
	return r.next()
}

// damage says what is wrong with the shard, or why it could not be read.
func (r *shardReader) damage(format string, args ...any) error {
	if r.source.Failed != nil {
		return r.source.Failed
	}
	return &DamageError{r.key, fmt.Sprintf(format, args...)}
}

func (r *shardReader) next() (err error) {
	r.member, err = r.tar.Next()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return r.damage("is damaged: %v", err)
	}
	if r.member.Typeflag != tar.TypeReg {
		return r.damage("holds %.60q, which is no plain file", r.member.Name)
	}
	return nil
}

// sample reads the files of one sample; all before it are skipped.
func (r *shardReader) sample(s store.ReceiptSample) (list []File, err error) {
	in := func() (id, name string) {
		id, name, _ = strings.Cut(r.member.Name, "/")
		return id, name
	}
	for r.member != nil {
		if id, _ := in(); id >= s.ID {
			break
		}
		if err := r.next(); err != nil {
			return list, err
		}
	}
	seen := map[string]bool{}
	for r.member != nil {
		id, name := in()
		if id != s.ID {
			break
		}
		at := fileOf(s, name)
		if at == nil || seen[name] {
			return list, r.damage("holds %.60q, which its receipt does not name, or twice", r.member.Name)
		}
		if r.want == nil || r.want(name) {
			file, err := take(r.key+": "+r.member.Name, r.tar, *at)
			if broken, ok := errors.AsType[*readError](err); ok {
				err = r.damage("is damaged: %v", broken)
			}
			if err != nil {
				return list, err
			}
			list = append(list, file)
		}
		seen[name] = true
		if err := r.next(); err != nil {
			return list, err
		}
	}
	for _, f := range s.Files {
		if !seen[f.Name] {
			return list, r.damage("lacks %s/%s", s.ID, f.Name)
		}
	}
	return list, nil
}

func fileOf(s store.ReceiptSample, name string) *store.ReceiptFile {
	for i := range s.Files {
		if s.Files[i].Name == name {
			return &s.Files[i]
		}
	}
	return nil
}
