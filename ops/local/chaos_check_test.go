package local

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// world is what lies in a bucket of a dataset, read from its plain files.
type world struct {
	dataset  task.Dataset
	receipts map[string][]store.Receipt // by generator
	objects  map[string][]byte          // of samples
	strange  []string                   // what has no business in the bucket
}

func readWorld(dir string, d task.Dataset) (*world, error) {
	root := filepath.Join(objectsDir(dir), Bucket)
	names, err := filesBelow(root)
	if err != nil {
		return nil, err
	}
	other := beside
	if d == beside {
		other = task.DefaultDataset
	}
	w := &world{dataset: d, receipts: map[string][]store.Receipt{}, objects: map[string][]byte{}}
	for _, name := range names {
		if name == other.ManifestKey() || strings.Contains(name, "/"+other.String()+"/") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			return nil, err
		}
		if name == "locks/"+environment.LockHash(data)+".txt" { // the real generator's
			continue
		}
		isData, isReceipt := strings.HasPrefix(name, d.Prefix(task.DataKind)),
			strings.HasPrefix(name, d.Prefix(task.ReceiptKind))
		if !isData && !isReceipt {
			if !slices.ContainsFunc([]string{d.Prefix(task.FailureKind), d.Prefix(task.RunKind), d.ManifestKey()},
				func(p string) bool { return strings.HasPrefix(name, p) }) {
				w.strange = append(w.strange, name)
			}
			continue
		}
		if isData {
			w.objects[name] = data
			continue
		}
		cell, err := store.ParseCell(name, data)
		if err != nil {
			return nil, err
		}
		if want := d.CellKey(cell.Generator, cell.Range()); want != name {
			w.strange = append(w.strange, fmt.Sprintf("%s calls itself %s", name, want))
		}
		if cell.Void != nil { // a holder whose last request was not answered may stay
			w.strange = append(w.strange, fmt.Sprintf("%s, of which %v are void", name, cell.Void))
		}
		w.receipts[cell.Generator] = append(w.receipts[cell.Generator], cell.Receipts...)
	}
	return w, nil
}

// origin is where a sample comes from, as its receipt says.
type origin struct{ seed, attempt int }

// content is what a dataset consists of: the hash of each file of each sample by
// its key in the files format, and where the samples come from. It does not
// depend on the format.
type content struct {
	files   map[string]string
	origins map[string]origin // by sample id
}

// timestamps are what differs each time in the samples of the moody generator.
var timestamps = regexp.MustCompile(`"timestamp": \d+`)

// content checks that the receipts and the objects agree, that just the samples
// of the ranges are there, each once, and returns them.
func (w *world) content(t testing.TB, samples map[string]int) content {
	t.Helper()
	c := content{files: map[string]string{}, origins: map[string]origin{}}
	for _, name := range w.strange {
		t.Errorf("there is a stray %s", name)
	}
	left := maps.Clone(w.objects)
	for name := range w.receipts {
		if samples[name] == 0 {
			t.Errorf("there are receipts of %s", name)
		}
	}
	for name, n := range samples {
		seen := map[int]string{}
		for _, r := range w.receipts[name] {
			files := map[string][]byte{}
			if r.Shard != nil {
				data, there := w.objects[r.Shard.Key]
				if !there || sum(data) != r.Shard.SHA256 || int64(len(data)) != r.Shard.Size {
					t.Errorf("%s vouches for %s with hash %.8s; it has %.8s", r.ID(), r.Shard.Key, r.Shard.SHA256, sum(data))
					continue
				}
				delete(left, r.Shard.Key)
				for member, data := range unpack(t, data) {
					files[w.dataset.SamplesPrefix(name)+member] = data
				}
			}
			for _, s := range r.Samples {
				if other, twice := seen[s.Index]; twice {
					t.Errorf("index %d of %s is in %s and in %s", s.Index, name, other, r.ID())
				}
				seen[s.Index] = r.ID()
				if s.Index < r.Start || s.Index >= r.End {
					t.Errorf("%s holds index %d", r.ID(), s.Index)
				}
				c.origins[s.ID] = origin{r.RunSeed, r.Attempt}
				for _, f := range s.Files {
					key := w.dataset.FileKey(name, s.ID, f.Name)
					data, there := files[key]
					if r.Shard == nil {
						data, there = w.objects[key]
						delete(left, key)
					}
					delete(files, key)
					if !there || sum(data) != f.SHA256 || int64(len(data)) != f.Size {
						t.Errorf("%s vouches for %s with hash %.8s; it has %.8s", r.ID(), key, f.SHA256, sum(data))
						continue
					}
					if strings.HasPrefix(name, moody) {
						data = timestamps.ReplaceAll(data, nil)
					}
					c.files[key] = sum(data)
				}
			}
			for member := range files {
				t.Errorf("%s holds %s, which its receipt does not name", r.Shard.Key, member)
			}
		}
		for i := range n {
			if _, there := seen[i]; !there {
				t.Errorf("index %d of %s is missing", i, name)
			}
			delete(seen, i)
		}
		for i, key := range seen {
			t.Errorf("index %d of %s is in %s, nobody asked for it", i, name, key)
		}
	}
	for key := range left {
		t.Errorf("%s is there without a receipt", key)
	}
	return c
}

// equals checks that a dataset is the same as the undisturbed one.
func (c content) equals(t testing.TB, want content) {
	t.Helper()
	for id, o := range want.origins {
		if got, there := c.origins[id]; there && got != o {
			t.Errorf("%s was made with run seed %d at attempt %d, undisturbed with %d at %d", id, got.seed, got.attempt, o.seed,
				o.attempt)
		}
	}
	if len(c.files) != len(want.files) {
		t.Errorf("%d files, undisturbed %d", len(c.files), len(want.files))
	}
	for key, hash := range want.files {
		if c.files[key] != hash {
			t.Errorf("%s has other bytes than undisturbed", key)
		}
	}
}

// tails are the ends of the logs in a stack's folder.
func tails(dir string) string {
	var all bytes.Buffer
	logs, _ := filepath.Glob(filepath.Join(dir, "logs", "*.log"))
	for _, log := range logs {
		text, _ := os.ReadFile(log)
		fmt.Fprintf(&all, "%s:\n%s\n", filepath.Base(log), text[max(0, len(text)-20_000):])
	}
	return all.String()
}
