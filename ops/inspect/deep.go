package inspect

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/probe"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/video"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// The kinds of hints that decoded videos show.
const (
	Undecoded  Kind = "video-undecoded"
	FirstFrame Kind = "video-first-frame"
	FinalFrame Kind = "video-final-frame"
	Frozen     Kind = "video-frozen"
	LowScore   Kind = "low-score"
)

var deepKinds = []About{
	{Kind: Undecoded, Text: "the video cannot be decoded", File: anyVideo, Deep: true},
	{Kind: FirstFrame, Text: "the video does not begin with the first frame", File: anyVideo, Deep: true},
	{Kind: FinalFrame, Text: "the video does not end with the final frame", File: anyVideo, Deep: true},
	{Kind: Frozen, Text: "all frames of the video are alike", File: anyVideo, Deep: true},
	{Kind: LowScore, Text: "the generator's own judge does not give it all points", File: anyVideo, Deep: true},
}

// Unlike is the distance, where they differ most, from which two pictures show something else. Encoding changes a block
// by at most 4 %, and the least that happens in a video is 15 %: docs/INSPECT.md has the measurements.
const Unlike = 0.08

// Hints are the hints of samples, by their indices.
type Hints map[int][]Hint

// Set are the kinds of these hints.
func (h Hints) Set() (set Set) {
	for _, list := range h {
		set |= SetOf(list)
	}
	return set
}

// Add adds hints.
func (h Hints) Add(others Hints) {
	for index, list := range others {
		h[index] = append(h[index], list...)
	}
}

// Deep finds hints in the files of samples.
type Deep struct {
	Store    *store.Store
	Progress func(what string, done, all int) // may be nil
}

// atOnce is how many samples one process decodes or judges before their files are removed.
const atOnce = 8

// Videos decodes the videos of n samples of a generator, spread evenly, or of all if n is 0.
func (d *Deep) Videos(ctx context.Context, generator string, n int, decoder *video.Decoder) (Hints, error) {
	hints := Hints{}
	want := func(name string) bool { return isFrame(name) || sample.IsGroundTruth(name) }
	return hints, d.files(ctx, "videos of "+generator, generator, n, want, func(ctx context.Context, dir string,
		samples []sample.Sample) (func(), error) {
		found, err := VideosOf(ctx, decoder, dir, samples)
		return func() { hints.Add(found) }, err
	})
}

// files has use read the files of n samples, spread evenly, or of all if n is 0, of some at once. What use returns is
// called by one goroutine at a time.
func (d *Deep) files(ctx context.Context, what, generator string, n int, want func(string) bool,
	use func(ctx context.Context, dir string, samples []sample.Sample) (func(), error)) error {
	all := 0
	for r, err := range receipts(ctx, d.Store, generator, nil) {
		if err != nil {
			return err
		}
		all += len(r.Current)
	}
	if n == 0 || n > all {
		n = all
	}
	place, chosen := 0, 0
	wanted := func(*sample.Sample) bool {
		yes := chosen < n && place == chosen*all/n
		place++
		if yes {
			chosen++
		}
		return yes
	}
	var mu sync.Mutex
	done := 0
	seats := make(chan struct{}, runtime.NumCPU())
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(2 * runtime.NumCPU()) // some wait for the bucket
	read := func(g picked) error {
		dir, err := os.MkdirTemp("", "inspect-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		samples, err := g.fetch(limited, d.Store, dir, want)
		if err != nil {
			return err
		}
		seats <- struct{}{}
		note, err := use(limited, dir, samples)
		<-seats
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		note()
		if done += len(samples); d.Progress != nil {
			d.Progress(what, done, n)
		}
		return nil
	}
	for g, err := range d.pick(limited, generator, wanted) {
		if err != nil {
			group.Go(func() error { return err })
			break
		}
		group.Go(func() error { return read(g) })
	}
	return group.Wait()
}

// VideosOf decodes the videos of samples whose files lie below dir.
func VideosOf(ctx context.Context, decoder *video.Decoder, dir string, samples []sample.Sample) (Hints, error) {
	var jobs []video.Job
	type place struct{ video, first, final int } // among the jobs; -1 if it is not there
	places, names := make([]place, len(samples)), make([]string, len(samples))
	for i, s := range samples {
		p := place{-1, -1, -1}
		for _, f := range s.Files {
			var at *int
			switch {
			case f.Name == firstFrame:
				at = &p.first
			case f.Name == finalFrame:
				at = &p.final
			case sample.IsGroundTruth(f.Name) && p.video < 0:
				at, names[i] = &p.video, f.Name
			}
			if at != nil {
				*at = len(jobs)
				jobs = append(jobs, video.Job{Path: f.Path, Every: true, Square: square})
			}
		}
		places[i] = p
	}
	decoded, err := decoder.Decode(ctx, dir, jobs)
	if err != nil {
		return nil, err
	}
	hints := Hints{}
	for i, p := range places {
		if p.video < 0 {
			continue
		}
		add := func(k Kind, number float64, format string, args ...any) {
			at := samples[i].Index
			hints[at] = append(hints[at], Hint{k, names[i], number, fmt.Sprintf(format, args...)})
		}
		v := decoded[p.video]
		if len(v.Shown) == 0 {
			add(Undecoded, 1, "%s", cmp.Or(v.Wrong, "there is nothing to decode it with"))
			continue
		}
		if v.Wrong != "" {
			add(Undecoded, 1, "%s", v.Wrong)
		}
		begin, end := v.Shown[0], v.Shown[len(v.Shown)-1]
		for _, x := range []struct {
			kind    Kind
			at      int
			frame   *video.Frame
			picture string
		}{{FirstFrame, p.first, begin, firstFrame}, {FinalFrame, p.final, end, finalFrame}} {
			if x.at < 0 || len(decoded[x.at].Shown) == 0 {
				continue
			}
			if mean, worst := distance(decoded[x.at].Shown[0], x.frame); worst >= Unlike {
				add(x.kind, worst, "%.0f %% from %s where they differ most, %.1f %% on average", 100*worst, x.picture, 100*mean)
			}
		}
		motion := 0.0 // the largest from the first frame to another
		for _, f := range v.Shown {
			_, worst := distance(begin, f)
			motion = max(motion, worst)
		}
		if v.Frames > 0 && motion < Unlike {
			add(Frozen, motion, "%d frames, at most %.1f %% from the first one", v.Frames, 100*motion)
		}
	}
	return hints, nil
}

// square is how many pixels wide and high pictures are compared: each is the mean of a block of the picture.
const square = 64

// distance is how far two pictures that are scaled to squares are from each other, from 0 to 1: of all blocks on
// average, and of the block that differs most. Black and white have 1.
func distance(a, b *video.Frame) (mean, worst float64) {
	sum, most := 0, 0
	for i := 0; i+2 < len(a.Pixels) && i+2 < len(b.Pixels); i += 3 {
		block := 0
		for c := range 3 {
			x := int(a.Pixels[i+c]) - int(b.Pixels[i+c])
			block += max(x, -x)
		}
		sum, most = sum+block, max(most, block)
	}
	return float64(sum) / float64(255*max(len(a.Pixels), 1)), float64(most) / (3 * 255)
}

// Judge has a generator's own judge score the videos of n of its samples, spread evenly, and returns hints for those
// that do not have all points, and how many were scored. probe.Blame recognizes the error if the judge is at fault.
func (d *Deep) Judge(ctx context.Context, g *generator.Generator, n int) (Hints, int, error) {
	hints, scored := Hints{}, 0
	all := func(string) bool { return true }
	err := d.files(ctx, "scores of "+g.Name, g.Name, n, all, func(ctx context.Context, dir string,
		samples []sample.Sample) (func(), error) {
		scratch := filepath.Join(dir, "judge")
		if err := os.Mkdir(scratch, 0o700); err != nil {
			return nil, err
		}
		scores, err := probe.Judge(ctx, g, scratch, samples)
		return func() {
			for i, s := range scores {
				if scored++; s.Low() {
					at := slices.IndexFunc(samples[i].Files, func(f sample.File) bool { return sample.IsGroundTruth(f.Name) })
					hint := Hint{Kind: LowScore, Number: s.Score, Text: s.Percent()}
					if at >= 0 {
						hint.File = samples[i].Files[at].Name
					}
					if len(s.Faults) > 0 {
						hint.Text += ": " + strings.Join(s.Faults[:min(len(s.Faults), shownFaults)], "; ")
					}
					hints[samples[i].Index] = append(hints[samples[i].Index], hint)
				}
			}
		}, err
	})
	if err != nil {
		err = fmt.Errorf("judge samples of %s: %w", g.Name, err)
	}
	return hints, scored, err
}

const shownFaults = 3

// picked are samples whose files are read, of one receipt.
type picked struct {
	receipt *store.Receipt
	samples []sample.Sample // in order of their indices
}

// receipts yields the receipts of a generator in the order of their samples. progress may be nil.
func receipts(ctx context.Context, st *store.Store, generator string,
	progress func(what string, done, all int)) iter.Seq2[*store.Receipt, error] {
	return func(yield func(*store.Receipt, error) bool) {
		names, err := st.CellNames(ctx, generator, task.Range{End: task.MaxIndex})
		if err != nil {
			yield(nil, err)
			return
		}
		var order dataset.Order
		done := 0
		for cell, err := range st.Cells(ctx, names) {
			if err != nil {
				yield(nil, err)
				return
			}
			if wrong := order.Contradiction(cell, st.Dataset(), generator); wrong != "" {
				yield(nil, fmt.Errorf("%s cannot be trusted: %s: %w", cell.Key(), wrong, store.ErrDamaged))
				return
			}
			for i := range cell.Receipts {
				if !yield(&cell.Receipts[i], nil) {
					return
				}
			}
			if done++; progress != nil {
				progress("receipts of "+generator, done, len(names))
			}
		}
	}
}

// pick yields the samples of a generator that are wanted, as its receipts are read. Those of a shard, which is read as
// a whole, come together, others at most atOnce.
func (d *Deep) pick(ctx context.Context, generator string, wanted func(*sample.Sample) bool) iter.Seq2[picked, error] {
	return func(yield func(picked, error) bool) {
		for r, err := range receipts(ctx, d.Store, generator, nil) {
			if err != nil {
				yield(picked{}, err)
				return
			}
			most := atOnce
			if r.Shard != nil {
				most = max(1, len(r.Current))
			}
			var samples []sample.Sample
			for i := range r.Current {
				if wanted(&r.Current[i]) {
					samples = append(samples, r.Current[i])
				}
			}
			for group := range slices.Chunk(samples, most) {
				if !yield(picked{r, group}, nil) {
					return
				}
			}
		}
	}
}

// fetch puts those files of samples that are wanted into folders of a folder, each named as its sample, and returns the
// samples with the paths. A file that does not fit its receipt is store.ErrDamaged.
func (p picked) fetch(ctx context.Context, st *store.Store, dir string, want func(string) bool) ([]sample.Sample,
	error) {
	samples := slices.Clone(p.samples)
	at := map[string]int{}
	for i := range samples {
		s := &samples[i]
		at[s.ID] = i
		s.Files = slices.DeleteFunc(slices.Clone(s.Files), func(f sample.File) bool { return !want(f.Name) })
		for j := range s.Files {
			f := &s.Files[j]
			if !fs.ValidPath(s.ID) || !fs.ValidPath(f.Name) {
				return nil, fmt.Errorf("%s: a file cannot be called %.60q: %w", s.ID, f.Name, store.ErrDamaged)
			}
			f.Path = filepath.Join(dir, s.ID, filepath.FromSlash(f.Name))
			if err := os.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
				return nil, err
			}
		}
	}
	r := p.receipt
	if r.Shard == nil {
		for _, s := range samples {
			for _, f := range s.Files {
				key := r.Dataset.FileKey(r.Generator, s.ID, f.Name)
				err := st.Stream(ctx, key, func(from io.Reader, _ store.Object) error { return save(f, key, from) })
				if err != nil {
					return nil, err
				}
			}
		}
		return samples, nil
	}
	err := st.Stream(ctx, r.Shard.Key, func(from io.Reader, _ store.Object) error {
		return dataset.ReadShard(from, *r, func(s store.ReceiptSample, f store.ReceiptFile, from io.Reader) error {
			i, ok := at[s.ID]
			if !ok || !r.Describes(s.Index) {
				return nil
			}
			if j := slices.IndexFunc(samples[i].Files, func(g sample.File) bool { return g.Name == f.Name }); j >= 0 {
				return save(samples[i].Files[j], r.Shard.Key, from)
			}
			return nil
		})
	})
	if d, ok := errors.AsType[dataset.Damage](err); ok {
		err = fmt.Errorf("%w: %w", d, store.ErrDamaged)
	}
	return samples, err
}

func save(f sample.File, key string, from io.Reader) error {
	to, err := os.Create(f.Path)
	if err != nil {
		return err
	}
	defer to.Close()
	hash, source := sha256.New(), &sample.Source{Reader: io.LimitReader(from, f.Size+1)}
	n, err := io.Copy(io.MultiWriter(to, hash), source)
	if err := errors.Join(err, to.Close()); err != nil {
		return err
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); n != f.Size || sum != f.SHA256 {
		return fmt.Errorf("%s of %s in %s is not what its receipt says: %w", f.Name, filepath.Base(filepath.Dir(f.Path)), key,
			store.ErrDamaged)
	}
	return nil
}
