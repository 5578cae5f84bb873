package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/monitor"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// through is the store of the cloud's bucket as seen through a proxy.
func (c *cloud) through(t *testing.T, handle func(w http.ResponseWriter, r *http.Request,
	next http.Handler)) *store.Store {
	t.Helper()
	o := c.s3.Options()
	client := s3.New(s3.Options{Region: o.Region, BaseEndpoint: aws.String(c.proxy(t, handle)), Credentials: o.Credentials,
		HTTPClient: store.HTTPClient(nil)}, store.ClientOptions)
	return store.New(client, testBucket)
}

// proxy starts one to the cloud's bucket and returns its address.
func (c *cloud) proxy(t *testing.T, handle func(w http.ResponseWriter, r *http.Request, next http.Handler)) string {
	t.Helper()
	endpoint := aws.ToString(c.s3.Options().BaseEndpoint)
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r2, err := http.NewRequestWithContext(r.Context(), r.Method, endpoint+r.URL.RequestURI(), r.Body)
		if err != nil {
			panic(err)
		}
		r2.Header, r2.ContentLength = r.Header.Clone(), r.ContentLength
		r2.Host = r.Host // is signed
		response, err := http.DefaultTransport.RoundTrip(r2)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer response.Body.Close()
		maps.Copy(w.Header(), response.Header)
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body)
	})
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(w, r, next) }))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// isContent reports whether a request reads or asks for a data object.
func isContent(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		strings.Contains(r.URL.Path, task.DefaultDataset.Prefix(task.DataKind))
}

// Where the store's checksums are trusted, nothing is read but pictures; what the
// store says is enough to find objects that were put by others. An object that came
// in parts has no checksum, and is read.
func TestTrust(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	b := &bucket{t: t, cloud: c, name: "trusted"}
	b.chunks = append(b.chunks, stored(t, c.store, "trusted", task.Range{Start: 0, End: 5}, task.Files, "",
		func(_ int, files map[string][]byte) { files["ground_truth.mp4"] = video() }))
	b.flip(b.file(1, "prompt.txt"))
	b.inParts(b.file(2, "prompt.txt"))
	var mu sync.Mutex
	var read []string
	st := c.through(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if isContent(r) && r.Method == http.MethodGet {
			mu.Lock()
			defer mu.Unlock()
			read = append(read, filepath.Base(filepath.Dir(r.URL.Path))+"/"+filepath.Base(r.URL.Path))
		}
		next.ServeHTTP(w, r)
	})
	report, err := (&dataset.Checker{Store: st, Deep: true, Trust: true}).Run(t.Context(), task.Run{Samples: 5, Generators: []task.RunGenerator{{Name: "trusted"}}})
	must(t, err)
	if g := report.Generators[0]; len(g.Examples) != 1 || g.Examples[0].Kind != dataset.WrongHash ||
		g.Examples[0].Key != b.file(1, "prompt.txt") {
		t.Errorf("%v", g.Examples)
	}
	slices.Sort(read)
	want := []string{"d_00000000/first_frame.png", "d_00000001/first_frame.png", "d_00000002/first_frame.png",
		"d_00000002/prompt.txt", "d_00000003/first_frame.png", "d_00000004/first_frame.png"}
	if !slices.Equal(read, want) {
		t.Errorf("read were %v", read)
	}
}

// inParts puts an object anew as a multipart upload.
func (b *bucket) inParts(key string) {
	b.t.Helper()
	data, name := b.get(key), aws.String(testBucket)
	up, err := b.s3.CreateMultipartUpload(b.t.Context(), &s3.CreateMultipartUploadInput{Bucket: name, Key: &key,
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
	must(b.t, err)
	part, err := b.s3.UploadPart(b.t.Context(), &s3.UploadPartInput{Bucket: name, Key: &key, UploadId: up.UploadId,
		PartNumber: aws.Int32(1), Body: bytes.NewReader(data)})
	must(b.t, err)
	_, err = b.s3.CompleteMultipartUpload(b.t.Context(), &s3.CompleteMultipartUploadInput{Bucket: name, Key: &key,
		UploadId: up.UploadId, MultipartUpload: completed(part)})
	must(b.t, err)
}

// A deep check that is stopped, anywhere, goes on where it was: what it has read is
// not read again, unless its receipt has changed, it is not whole, or the journal
// is of something else or old.
func TestVerifyResumes(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	const chunks = 80 // of which a few dozen are under way when it is stopped
	b := &bucket{t: t, cloud: c, name: "long"}
	for n := range chunks {
		b.chunks = append(b.chunks, stored(t, c.store, "long", task.Range{Start: 2 * n, End: 2*n + 2},
			[]task.Format{task.Files, task.Tar}[n%2], ""))
	}
	run := task.Run{Samples: 2 * chunks, Generators: []task.RunGenerator{{Name: "long"}}}
	path := filepath.Join(t.TempDir(), "verify", "long.journal")
	// check returns what was found and how many objects were read. Each has a proxy of its
	// own: requests of a check that was stopped may still be under way in the next one.
	check := func(about string, fresh bool, stopAfter int64) (*dataset.GeneratorReport, int64, error) {
		t.Helper()
		j, err := dataset.OpenJournal(path, about, fresh)
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var reads atomic.Int64
		st := c.through(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if isContent(r) && reads.Add(1) > stopAfter && stopAfter > 0 {
				cancel()
				panic(http.ErrAbortHandler) // no answer: an empty one would be a damaged object
			}
			next.ServeHTTP(w, r)
		})
		report, err := (&dataset.Checker{Store: st, Deep: true, Journal: j}).Run(ctx, run)
		must(t, j.Close(err == nil))
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("stopped, it says %v", err)
			}
			return nil, reads.Load(), err
		}
		return report.Generators[0], reads.Load(), nil
	}
	whole, all, err := check("a", false, 0)
	if err != nil || !whole.Complete || all != chunks/2*4+chunks/2 {
		t.Fatalf("%+v, %d read, %v", whole, all, err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a check that has ended leaves its journal: %v", err)
	}
	if _, n, _ := check("a", false, 0); n != all {
		t.Errorf("the next check reads %d of %d", n, all)
	}

	_, _, err = check("a", false, all*6/10)
	if err == nil {
		t.Fatal("it was not stopped")
	}
	before, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, before[:len(before)-3], 0o644)) // the machine died in a line
	g, n, err := check("a", false, 0)
	if err != nil || !g.Complete || n >= all*9/10 || g.Resumed < 5 {
		t.Errorf("resumed: %+v, %d of %d read, %v", g, n, all, err)
	}

	for name, change := range map[string]func() (about string, fresh bool){
		"of something else": func() (string, bool) { return "b", false },
		"unwanted":          func() (string, bool) { return "a", true },
		"old": func() (string, bool) {
			old := time.Now().Add(-dataset.JournalAge - time.Hour).UTC().Format(time.RFC3339)
			must(t, os.WriteFile(path, append([]byte(old), before[len(old):]...), 0o644))
			return "a", false
		},
	} {
		must(t, os.WriteFile(path, before, 0o644))
		about, fresh := change()
		if g, n, err := check(about, fresh, 0); err != nil || n != all || g.Resumed != 0 {
			t.Errorf("a journal that is %s: %d of %d read, %v", name, n, all, err)
		}
	}

	// A receipt that has changed is read again, with what it says now; so are the
	// objects of one whose sizes are wrong.
	must(t, os.WriteFile(path, before, 0o644))
	for _, r := range b.chunks {
		r.RunID = "another"
		c.rewrite(t, r)
	}
	b.flip(b.file(0, "prompt.txt"))
	b.truncate(b.file(4, "prompt.txt"))
	if g, n, err := check("a", false, 0); err != nil || g.Resumed != 0 || g.Damaged[dataset.WrongHash] != 1 ||
		g.Damaged[dataset.WrongSize] != 1 || n != all { // of the shorter file only the size is asked for
		t.Errorf("receipts that have changed: %+v, %d read, %v", g, n, err)
	}

	// Two at once would write one journal.
	j, err := dataset.OpenJournal(path, "a", false)
	must(t, err)
	if _, err := dataset.OpenJournal(path, "a", false); !errors.Is(err, dataset.ErrBusy) {
		t.Errorf("a second check: %v", err)
	}
	must(t, j.Close(true))
}

// layer is a receipt of a random dataset.
type layer struct {
	task.Chunk
	format task.Format
	what   string
}

// store commits a layer above what is there, as the worker does.
func (l layer) store(t *testing.T, c *cloud, generator string) {
	t.Helper()
	r := store.Receipt{Generator: generator, RunID: "r", RunSeed: 7, ChunkSize: l.Cell.Len(), ChunkStart: l.Keep.Start,
		Start: l.Keep.Start, End: l.Keep.End,
		Indices: l.Indices, FirstAttempt: l.Attempt, Attempt: l.Attempt, Format: l.format, Domain: "d"}
	cell, err := taken(t.Context(), c.store, r)
	must(t, err)
	r.Epoch = cell.Epoch
	dir := t.TempDir()
	var list []sample.Sample
	for _, i := range l.Kept() {
		text := fmt.Sprint(l.what, " ", i)
		s := sample.Sample{Index: i, ID: task.SampleID("d", i), Fingerprint: text}
		for name, data := range map[string][]byte{"first_frame.png": picture(text), "prompt.txt": []byte(text)} {
			file := filepath.Join(dir, fmt.Sprint(i, name))
			must(t, os.WriteFile(file, data, 0o600))
			s.Files = append(s.Files, sample.File{Name: name, Path: file, Size: int64(len(data)), SHA256: hashOf(data)})
		}
		list = append(list, s)
		r.Samples = append(r.Samples, s)
	}
	if l.format == task.Tar {
		shard, err := c.store.PutShard(t.Context(), generator, l.Chunk, cell.Epoch, list)
		must(t, err)
		r.Shard = &shard
	} else {
		must(t, c.store.PutFiles(t.Context(), generator, list))
	}
	must(t, c.store.Commit(t.Context(), cell, r, -1, false))
	must(t, c.store.Release(t.Context(), cell, true))
}

// Whatever was repaired, and repaired again, in either format, whole receipts being
// superseded: every reader sees for each index what came last, counts it once, and
// finds nothing wrong.
func TestReadersGoByTheLastReceipt(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	for trial := range 3 {
		random := rand.New(rand.NewPCG(uint64(trial), 9)) //nolint:gosec // repeatable
		name := fmt.Sprintf("layers-%d", trial)
		const samples = 20
		format := func() task.Format { return []task.Format{task.Files, task.Tar}[random.IntN(2)] }
		var layers []layer
		for start := 0; start < samples; start += 5 {
			cell := task.Range{Start: start, End: start + 5}
			layers = append(layers, layer{task.Chunk{Cell: cell, Keep: cell}, format(), "chunk"})
		}
		for n := range 8 {
			var indices []int
			for i := range samples {
				if random.IntN(3) == 0 || n == 7 && i%2 == 0 {
					indices = append(indices, i)
				}
			}
			if indices != nil {
				for _, chunk := range (task.Task{Indices: indices, ChunkSize: 5, Attempt: 1000 * (n + 1)}).Chunks() {
					layers = append(layers, layer{chunk, format(), fmt.Sprintf("repair %d", n)})
				}
			}
		}
		want := map[int]string{}
		for _, l := range layers {
			l.store(t, c, name)
			for _, i := range l.Kept() {
				want[i] = fmt.Sprint(l.what, " ", i)
			}
		}

		run := task.Run{ID: name, Seed: 7, Samples: samples, Batch: 5, ChunkSize: 5, Format: task.Files,
			Generators: []task.RunGenerator{{Name: name}}}
		report, err := (&dataset.Checker{Store: c.store, Deep: true}).Run(t.Context(), run)
		must(t, err)
		if g := report.Generators[0]; !g.Complete || g.Samples != samples || g.Duplicates != 0 || g.Distinct != samples {
			t.Errorf("trial %d: verify: %+v", trial, g)
		}
		to := t.TempDir()
		if said, err := fetch(t, c, to, true, name); err != nil ||
			!strings.Contains(said, fmt.Sprintf(`"files": %d,`, 2*samples)) {
			t.Errorf("trial %d: download: %s %v", trial, said, err)
		}
		for i, text := range want {
			got, err := os.ReadFile(filepath.Join(to, name, task.SampleID("d", i), "prompt.txt"))
			if err != nil || string(got) != text {
				t.Errorf("trial %d: sample %d is downloaded as %q, want %q: %v", trial, i, got, text, err)
			}
			_, s, err := dataset.Find(t.Context(), c.store, name, i)
			if err != nil || s.Fingerprint != text {
				t.Errorf("trial %d: sample %d is found as %q, want %q: %v", trial, i, s.Fingerprint, text, err)
			}
		}
		var listed bytes.Buffer
		must(t, (&ResultsListCmd{Generator: []string{name}}).Run(t.Context(),
			&Output{&ui.Output{Style: &ui.Style{JSON: true}, Stdout: &listed, Stderr: io.Discard}, &target.Flags{}}, c.store))
		if !strings.Contains(listed.String(), fmt.Sprintf(`"samples": %d,`, samples)) {
			t.Errorf("trial %d: list: %s", trial, &listed)
		}
		p, err := monitor.New(c.store, c.queue, run).Poll(t.Context())
		if err != nil || p.Committed != samples || p.Expected != samples {
			t.Errorf("trial %d: monitor: %+v, %v", trial, p, err)
		}
		if left, err := dataset.Narrow(t.Context(), c.store, run); err != nil || len(left.Plan()) != 0 {
			t.Errorf("trial %d: missing: %+v, %v", trial, left.Plan(), err)
		}
	}
}

// A run of repairs is not done before each of its receipts is there: a repair's own,
// and for what is restored that of this run.
func TestMonitorRepairs(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	chunk := stored(t, c.store, "maze", task.Range{Start: 0, End: 5}, task.Files, "")
	run := task.Run{ID: "mend", Seed: 7, Samples: 5, Batch: 5, ChunkSize: 5, Format: task.Files, Missing: true,
		Generators: []task.RunGenerator{{Name: "maze", Repairs: []task.Task{
			{Generator: "maze", NumSamples: 5, Seed: 7, ChunkSize: 5, Format: task.Files, Restore: 1},
			{Generator: "maze", Indices: []int{1, 3}, Attempt: 1000, Seed: 7, ChunkSize: 5, Format: task.Files},
		}}}}
	m := monitor.New(c.store, c.queue, run)
	committed := func(want int) {
		t.Helper()
		p, err := m.Poll(t.Context())
		if err != nil || p.Committed != want {
			t.Errorf("%+v, %v; want %d", p, err, want)
		}
	}
	committed(0) // 5 to restore and 2 to repair: never less than none
	cell, err := taken(t.Context(), c.store, chunk)
	must(t, err)
	chunk.Epoch = cell.Epoch
	must(t, c.store.Commit(t.Context(), cell, chunk, 0, true))
	committed(3)
	layer{run.Generators[0].Repairs[1].Chunks()[0], task.Files, "x"}.store(t, c, "maze")
	committed(5)
}

func completed(part *s3.UploadPartOutput) *types.CompletedMultipartUpload {
	return &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: part.ETag,
		ChecksumCRC32: part.ChecksumCRC32}}}
}
