package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// stored commits samples for real: their files or shard, then the receipt. The
// text of a sample is name, index and what.
func stored(t testing.TB, st *store.Store, generator string, r task.Range, format task.Format, claim int, what string) store.Receipt {
	t.Helper()
	receipt := store.Receipt{Generator: generator, RunID: "r", RunSeed: 7, ChunkSize: r.Len(), ChunkStart: r.Start, Start: r.Start, End: r.End, Claim: claim, Format: format, Domain: "d"}
	dir := t.TempDir()
	var list []sample.Sample
	for i := r.Start; i < r.End; i++ {
		text := fmt.Sprintf("%s %d %s", generator, i, what)
		sum := sha256.Sum256([]byte(text))
		hash := hex.EncodeToString(sum[:])
		s := sample.Sample{Index: i, ID: task.SampleID("d", i), Fingerprint: hash}
		for _, name := range []string{"first_frame.png", "prompt.txt"} {
			file := filepath.Join(dir, fmt.Sprint(i)+name)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			s.Files = append(s.Files, sample.File{Name: name, Path: file, Size: int64(len(text)), SHA256: hash})
		}
		list = append(list, s)
		receipt.Samples = append(receipt.Samples, store.Described(s))
	}
	if format == task.Tar {
		shard, err := st.PutShard(t.Context(), generator, task.Chunk{Cell: r, Keep: r}, list)
		if err != nil {
			t.Fatal(err)
		}
		receipt.Shard = &shard
	} else if err := st.PutFiles(t.Context(), generator, list); err != nil {
		t.Fatal(err)
	}
	if err := st.PutReceipt(t.Context(), receipt); err != nil {
		t.Fatal(err)
	}
	return receipt
}

// Verify names what is wrong with a bucket, and finds nothing wrong with a
// healthy one.
func TestVerify(t *testing.T) {
	c := newCloud(t)
	file := func(name string, index int) string {
		return task.FileKey(name, task.SampleID("d", index), "prompt.txt")
	}
	for _, test := range []struct {
		name       string
		sabotage   func(t *testing.T, name string, chunks []store.Receipt)
		format     task.Format
		samples    int
		missing    []string
		problems   []string // a word of each
		duplicates []Duplicate
	}{
		{name: "healthy", format: task.Files, samples: 20},
		{name: "healthy-shards", format: task.Tar, samples: 20},
		{name: "object-deleted", format: task.Files, samples: 20, problems: []string{"is not there"}, sabotage: func(t *testing.T, name string, _ []store.Receipt) {
			must(t, c.store.Delete(t.Context(), []string{file(name, 3)}))
		}},
		{name: "shard-deleted", format: task.Tar, samples: 20, problems: []string{"is not there"}, sabotage: func(t *testing.T, name string, chunks []store.Receipt) {
			must(t, c.store.Delete(t.Context(), []string{chunks[1].Shard.Key}))
		}},
		{name: "object-cut", format: task.Files, samples: 20, problems: []string{"has 1 bytes"}, sabotage: func(t *testing.T, name string, _ []store.Receipt) {
			place(t, c.store, name, 7, "prompt.txt", "x")
		}},
		{name: "object-too-many", format: task.Files, samples: 20, problems: []string{"without a receipt"}, sabotage: func(t *testing.T, name string, _ []store.Receipt) {
			place(t, c.store, name, 7, "extra.txt", "x")
		}},
		{name: "sample-outside", format: task.Files, samples: 20, sabotage: func(t *testing.T, name string, _ []store.Receipt) {
			place(t, c.store, name, 25, "prompt.txt", "x") // not in the range that is verified
		}},
		{name: "receipt-deleted", format: task.Files, samples: 15, missing: []string{"5-9"}, problems: slices.Repeat([]string{"without a receipt"}, 10), sabotage: func(t *testing.T, name string, chunks []store.Receipt) {
			must(t, c.store.DeleteReceipt(t.Context(), chunks[1]))
		}},
		{name: "shard-without-receipt", format: task.Tar, samples: 15, missing: []string{"15-19"}, problems: []string{"without a receipt"}, sabotage: func(t *testing.T, name string, chunks []store.Receipt) {
			must(t, c.store.DeleteReceipt(t.Context(), chunks[3]))
		}},
		{name: "two-gaps", format: task.Files, samples: 10, missing: []string{"0-4", "10-14"}, sabotage: func(t *testing.T, name string, chunks []store.Receipt) {
			for _, n := range []int{0, 2} {
				must(t, c.store.DeleteReceipt(t.Context(), chunks[n]))
				must(t, c.store.Delete(t.Context(), chunks[n].ObjectKeys()))
			}
		}},
		{name: "duplicates", format: task.Files, samples: 20, duplicates: []Duplicate{{6, 3}, {19, 3}}, sabotage: func(t *testing.T, name string, chunks []store.Receipt) {
			mark := chunks[0].Samples[3].Fingerprint
			for n, at := range map[int]int{1: 1, 3: 4} {
				must(t, c.store.DeleteReceipt(t.Context(), chunks[n]))
				chunks[n].Samples[at].Fingerprint = mark
				must(t, c.store.PutReceipt(t.Context(), chunks[n]))
			}
		}},
		{name: "superseded", format: task.Files, samples: 20, sabotage: func(t *testing.T, name string, _ []store.Receipt) {
			stored(t, c.store, name, task.Range{Start: 8, End: 12}, task.Files, 2, "longer than before")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var chunks []store.Receipt
			for start := 0; start < 20; start += 5 {
				chunks = append(chunks, stored(t, c.store, test.name, task.Range{Start: start, End: start + 5}, test.format, 1, ""))
			}
			if test.sabotage != nil {
				test.sabotage(t, test.name, chunks)
			}
			report, err := verify(t.Context(), c.store, task.Run{Samples: 20, Generators: []task.RunGenerator{{Name: test.name}}}, func(int) {})
			must(t, err)
			g := report.Generators[0]
			if g.Samples != test.samples || !slices.Equal(g.Missing, test.missing) || !slices.Equal(g.Duplicates, test.duplicates) || len(g.Problems) != len(test.problems) {
				t.Errorf("%+v", g)
			}
			for i, word := range test.problems {
				if !strings.Contains(g.Problems[i], word) || !strings.Contains(g.Problems[i], test.name) {
					t.Errorf("%s", g.Problems[i])
				}
			}
			whole := len(test.missing)+len(test.problems) == 0
			if g.Whole != whole || report.Whole != whole {
				t.Errorf("whole is %v", g.Whole)
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place puts an object where a sample's file stands.
func place(t *testing.T, st *store.Store, generator string, index int, name, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	sum := sha256.Sum256([]byte(text))
	f := sample.File{Name: name, Path: path, Size: int64(len(text)), SHA256: hex.EncodeToString(sum[:])}
	must(t, st.PutFiles(t.Context(), generator, []sample.Sample{{ID: task.SampleID("d", index), Files: []sample.File{f}}}))
}
