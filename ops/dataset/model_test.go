package dataset

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// chunkContent is what makes a sample of a chunk.
func chunkContent(index int) string {
	return fmt.Sprintf("chunk %d, sample %d", index/chunkOfModel, index%chunkOfModel)
}

// Steps of the model.

func (l *lab) fill() {
	t := l.newTask()
	t.StartIndex = l.random.IntN(samplesOfModel)
	t.NumSamples = 1 + l.random.IntN(samplesOfModel-t.StartIndex)
	l.note("%s", t.Body())
	l.perform(t)
	l.sent = append(l.sent, t)
	for i := t.StartIndex; i < t.StartIndex+t.NumSamples; i++ {
		if l.content[i] == "" {
			l.content[i] = chunkContent(i)
		}
	}
}

func (l *lab) repair() {
	if len(l.content) == 0 {
		return
	}
	t := l.newTask()
	t.Attempt = NextAttempt(l.runs * 1000)
	for _, i := range slices.Sorted(maps.Keys(l.content)) {
		if l.random.IntN(4) == 0 {
			t.Indices = append(t.Indices, i)
		}
	}
	if t.Indices == nil {
		return
	}
	l.note("%s", t.Body())
	l.perform(t)
	l.sent = append(l.sent, t)
	for _, c := range t.Chunks() {
		for n, i := range c.Indices {
			l.content[i] = fmt.Sprintf("repair %v, attempt %d, sample %d", c.Indices, t.Attempt, n)
		}
	}
}

// again delivers an old task once more: nothing comes of it.
func (l *lab) again() {
	if len(l.sent) == 0 {
		return
	}
	before := l.objects()
	t := l.sent[l.random.IntN(len(l.sent))]
	l.note("again %s", t.Body())
	l.perform(t)
	l.same(before)
}

// damage breaks objects, and a plan repairs them to the last byte.
func (l *lab) damage() {
	before, samples := l.objects(), l.members()
	if len(before) == 0 {
		return
	}
	keys := l.needed()
	for range 1 + l.random.IntN(3) {
		key := keys[l.random.IntN(len(keys))]
		switch data := slices.Clone(before[key]); l.random.IntN(4) {
		case 0:
			l.note("delete %s", key)
			l.must(l.store.Delete(l.t.Context(), []string{key}))
		case 1:
			l.note("truncate %s", key)
			l.put(key, data[:len(data)/2])
		case 2:
			l.note("flip %s", key)
			data[l.random.IntN(len(data))] ^= 1
			l.put(key, data)
		case 3:
			l.note("copy %s", key)
			l.put(path.Dir(key)+"/copy-"+path.Base(key), data)
		}
	}
	report := l.check()
	if report.Complete == (len(report.Damaged) > 0 || len(report.Missing) > 0) {
		l.t.Errorf("complete is %v: %+v", report.Complete, report)
	}
	remove, err := Removable(l.t.Context(), l.store, "good", report.plan.Remove)
	l.must(err)
	l.must(l.store.Delete(l.t.Context(), remove))
	tasks, changed, err := Restorations(l.t.Context(), l.store, "good",
		slices.Concat(report.plan.Gone, report.plan.Corrupt))
	l.must(err)
	if changed > 0 {
		l.t.Errorf("%d receipts have changed meanwhile", changed)
	}
	l.runs++
	for _, t := range tasks {
		t.RunID = fmt.Sprintf("run-%04d", l.runs)
		l.perform(t)
		l.sent = append(l.sent, t)
	}
	if after := l.members(); !maps.EqualFunc(samples, after, bytes.Equal) {
		l.t.Errorf("samples differ after they were repaired: %v", difference(samples, after))
	}
	l.same(before)
}

// cells are the cells that are there.
func (l *lab) cells() (list []*store.Cell) {
	names, err := l.store.CellNames(l.t.Context(), "good", task.Range{End: samplesOfModel})
	l.must(err)
	for c, err := range l.store.Cells(l.t.Context(), names) {
		l.must(err)
		list = append(list, c)
	}
	return list
}

func (l *lab) receipts() (list []store.Receipt) {
	for _, c := range l.cells() {
		list = append(list, c.Receipts...)
	}
	return list
}

// needed are the objects that hold a sample as it is described: a shard all of
// whose samples were replaced since is neither missed nor repaired.
func (l *lab) needed() []string {
	needed := map[string]bool{}
	for _, r := range l.receipts() {
		for _, key := range r.Objects() {
			needed[key] = true
		}
	}
	return slices.Sorted(maps.Keys(needed))
}

// forget deletes a cell, with all that is known of it. What fills the gap makes its
// samples as the chunk has them.
func (l *lab) forget() {
	cells := l.cells()
	if len(cells) == 0 {
		return
	}
	c := cells[l.random.IntN(len(cells))]
	l.note("forget %s", c.Key())
	l.must(l.store.Delete(l.t.Context(), []string{c.Key()}))
	l.sent = slices.DeleteFunc(l.sent, func(t task.Task) bool { return t.Range().Overlaps(c.Range()) })
	for _, i := range c.Committed() {
		t := l.newTask()
		t.StartIndex, t.NumSamples = i, 1
		l.perform(t)
		l.sent = append(l.sent, t)
		l.content[i] = chunkContent(i)
	}
	remove, err := Removable(l.t.Context(), l.store, "good", l.check().plan.Remove)
	l.must(err)
	l.must(l.store.Delete(l.t.Context(), remove))
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatalf("%v\n%s", err, strings.Join(l.history, "\n"))
	}
}

func (l *lab) put(key string, data []byte) {
	_, err := l.client.PutObject(l.t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: &key,
		Body: bytes.NewReader(data)})
	l.must(err)
}

// objects are the data objects that are stored.
func (l *lab) objects() map[string][]byte {
	found := map[string][]byte{}
	for o, err := range l.store.List(l.t.Context(), task.DefaultDataset.Prefix(task.DataKind), "") {
		l.must(err)
		found[o.Key], err = l.store.Read(l.t.Context(), o.Key)
		l.must(err)
	}
	return found
}

// members are the files of the samples as the receipts describe them, however they
// are stored.
func (l *lab) members() map[string][]byte {
	objects := l.objects()
	files := map[string][]byte{}
	for _, r := range l.receipts() {
		packed := map[string][]byte{}
		if r.Shard != nil && len(r.Current) > 0 {
			z, err := gzip.NewReader(bytes.NewReader(objects[r.Shard.Key]))
			l.must(err)
			for a := tar.NewReader(z); ; {
				h, err := a.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				l.must(err)
				packed[h.Name], err = io.ReadAll(a)
				l.must(err)
			}
		}
		for _, s := range r.Current {
			for _, f := range s.Files {
				name := s.ID + "/" + f.Name
				if files[name] = packed[name]; r.Shard == nil {
					files[name] = objects[task.DefaultDataset.FileKey("good", s.ID, f.Name)]
				}
			}
			if before, known := l.prints[l.content[s.Index]]; known && before != s.Fingerprint {
				l.t.Errorf("sample %d is not what %s made", s.Index, l.content[s.Index])
			}
			l.prints[l.content[s.Index]] = s.Fingerprint
		}
	}
	return files
}

// same compares the bucket with what it was. A shard may have been written again by
// the holder of another epoch, whose number its key has.
func (l *lab) same(before map[string][]byte) {
	l.t.Helper()
	after := l.objects()
	if len(before) != len(after) || !maps.EqualFunc(epochless(before), epochless(after), bytes.Equal) {
		l.t.Errorf("the bucket differs: %v", difference(before, after))
	}
}

var epochOfShard = regexp.MustCompile(`_e\d+\.tar\.gz$`)

func epochless(objects map[string][]byte) map[string][]byte {
	all := map[string][]byte{}
	for key, data := range objects {
		all[epochOfShard.ReplaceAllString(key, ".tar.gz")] = data
	}
	return all
}

func difference(before, after map[string][]byte) (list []string) {
	for key := range before {
		if after[key] == nil {
			list = append(list, "without "+key)
		} else if !bytes.Equal(before[key], after[key]) {
			list = append(list, "other "+key)
		}
	}
	for key := range after {
		if before[key] == nil {
			list = append(list, "with "+key)
		}
	}
	return list
}

func (l *lab) check() *GeneratorReport {
	report, err := (&Checker{Store: l.store, Deep: true}).Generator(l.t.Context(), "good", task.Range{End: samplesOfModel})
	l.must(err)
	return report
}

// Whatever is made, repaired, overwritten, forgotten, damaged and repaired, in any
// order, in both formats, delivered again and interrupted anywhere: every reader
// sees for each index what the last one to make it made, a deep check finds nothing
// wrong, and repairing brings back the bytes that were there.
func TestModel(t *testing.T) {
	seeds := []uint64{17}
	if os.Getenv("SCALE") != "" {
		seeds = append(seeds, 31, 1796070696342833192, uint64(time.Now().UnixNano()))
	}
	if one := os.Getenv("MODEL_SEED"); one != "" {
		var seed uint64
		if _, err := fmt.Sscan(one, &seed); err != nil {
			t.Fatal(err)
		}
		seeds = []uint64{seed}
	}
	t.Setenv("TMPDIR", t.TempDir())
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := newLab(t, seed)
			for step := range 20 {
				steps := []func(){l.fill, l.fill, l.repair, l.repair, l.again, l.damage, l.damage, l.forget}
				steps[l.random.IntN(len(steps))]()
				report := l.check()
				if len(report.Damaged) > 0 || report.Samples != len(l.content) {
					t.Errorf("step %d: %d samples, want %d; %v", step, report.Samples, len(l.content), report.Examples)
				}
				l.members()
				if t.Failed() {
					t.Fatalf("MODEL_SEED=%d, step %d:\n%s", seed, step, strings.Join(l.history, "\n"))
				}
			}
		})
	}
}
