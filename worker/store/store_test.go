package store_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestMain(m *testing.M) {
	s3server.Main()
	os.Exit(m.Run())
}

var quick = store.HTTPClient(nil)

// network is the way to the bucket; tests cut it.
type network struct {
	mu    sync.Mutex
	fault func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error)
}

func (n *network) Do(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	fault := n.fault
	n.mu.Unlock()
	send := func() (*http.Response, error) { return quick.Do(r) }
	if fault == nil {
		return send()
	}
	return fault(r, send)
}

func (n *network) set(fault func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fault = fault
}

// newStore returns the store of a fresh bucket in a real server.
func newStore(t testing.TB) (*store.Store, *network) {
	t.Helper()
	dir := t.TempDir()
	server, err := s3server.Start(t.Context(), s3server.Config{Dir: filepath.Join(dir, "objects"), Meta: filepath.Join(dir, "metadata"), Address: "127.0.0.1:0", Bucket: "bucket", Region: "us-east-2", AccessKey: "a", SecretKey: "b"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	n := &network{}
	client := s3.New(s3.Options{BaseEndpoint: aws.String(server.URL()), Region: "us-east-2", HTTPClient: n, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported}, store.ClientOptions) // as in a configuration
	return store.New(client, "bucket"), n
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// receipt is a receipt of one generator over a range.
func receipt(start, end, claim int) store.Receipt {
	r := store.Receipt{Generator: "maze", ChunkSize: end - start, ChunkStart: start, Start: start, End: end, Claim: claim, Format: task.Files, Domain: "maze"}
	for i := start; i < end; i++ {
		r.Samples = append(r.Samples, store.ReceiptSample{ID: task.SampleID("maze", i), Index: i, Files: []store.ReceiptFile{{Name: "prompt.txt", Size: 3}}})
	}
	return r
}

// makeSamples are samples of files with these sizes, on disk.
func makeSamples(t testing.TB, first, n int, sizes ...int) []sample.Sample {
	t.Helper()
	dir := t.TempDir()
	list := make([]sample.Sample, n)
	for i := range list {
		s := sample.Sample{Index: first + i, ID: task.SampleID("maze", first+i)}
		for j, size := range sizes {
			data := bytes.Repeat([]byte{byte(i*7 + j)}, size)
			r := rand.New(rand.NewPCG(uint64(i), uint64(j))) //nolint:gosec // test data that does not compress
			for k := range data {
				data[k] = byte(r.Uint32())
			}
			f := sample.File{Name: fmt.Sprintf("file%d.bin", j), Size: int64(size), Path: filepath.Join(dir, fmt.Sprintf("%d_%d", i, j))}
			sum := sha256.Sum256(data)
			f.SHA256 = hex.EncodeToString(sum[:])
			check(t, os.WriteFile(f.Path, data, 0o600))
			s.Files = append(s.Files, f)
		}
		list[i] = s
	}
	return list
}

func keys(t testing.TB, s *store.Store, prefix string) []string {
	t.Helper()
	var list []string
	for o, err := range s.List(t.Context(), prefix, "") {
		check(t, err)
		list = append(list, o.Key)
	}
	return list
}

func content(t testing.TB, s *store.Store, key string) []byte {
	t.Helper()
	body, _, err := s.Get(t.Context(), key)
	check(t, err)
	defer body.Close()
	data, err := io.ReadAll(body)
	check(t, err)
	return data
}

// A receipt is written once, whoever else writes one.
func TestReceiptOnce(t *testing.T) {
	s, _ := newStore(t)
	first, second := receipt(0, 5, 1), receipt(0, 5, 2)
	check(t, s.PutReceipt(t.Context(), first))
	if err := s.PutReceipt(t.Context(), second); !errors.Is(err, store.ErrExists) {
		t.Errorf("the second one: %v", err)
	}
	if got, err := s.Receipt(t.Context(), first.Key()); err != nil || got.Claim != 1 {
		t.Errorf("claim %d, %v", got.Claim, err)
	}
	check(t, s.DeleteReceipt(t.Context(), first))
	if _, err := s.Receipt(t.Context(), first.Key()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("deleted, and then: %v", err)
	}
	check(t, s.DeleteReceipt(t.Context(), first)) // what is not there is no error
	check(t, s.PutReceipt(t.Context(), second))
}

// The answer to a conditional put may be lost after the object was written. The
// SDK then sends it again and is told that it exists: that is our own.
func TestLostAnswer(t *testing.T) {
	for name, answer := range map[string]func(r *http.Response) (*http.Response, error){
		"reset": func(r *http.Response) (*http.Response, error) {
			_ = r.Body.Close()
			return nil, io.ErrUnexpectedEOF
		},
		"internal error": func(r *http.Response) (*http.Response, error) {
			_ = r.Body.Close()
			return &http.Response{StatusCode: 500, Body: io.NopCloser(strings.NewReader("")), Header: http.Header{}, Request: r.Request}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, n := newStore(t)
			var lost atomic.Int32
			n.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
				response, err := send()
				if err == nil && r.Method == http.MethodPut && lost.Add(1) == 1 {
					return answer(response)
				}
				return response, err
			})
			check(t, s.PutReceipt(t.Context(), receipt(0, 5, 1)))
			if lost.Load() < 2 {
				t.Fatal("no answer was lost")
			}
			if err := s.PutReceipt(t.Context(), receipt(0, 5, 2)); !errors.Is(err, store.ErrExists) {
				t.Errorf("another one: %v", err)
			}
			lost.Store(0)
			claim, err := s.Claim(t.Context(), "maze", task.Chunk{Cell: task.Range{End: 5}}, store.Holder{RequestID: "r", Deadline: time.Now().Add(time.Hour)}, 0)
			if err != nil || claim.Number != 1 {
				t.Errorf("claim %+v, %v", claim, err)
			}
		})
	}
}

// An answer may be cut off after the object's first bytes have come. It is asked for
// again, like a request that failed, until the time is up.
func TestCutAnswer(t *testing.T) {
	s, n := newStore(t)
	check(t, s.PutReceipt(t.Context(), receipt(0, 5, 1)))
	var reads, cut atomic.Int32
	n.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		response, err := send()
		if err == nil && r.Method == http.MethodGet && reads.Add(1) <= cut.Load() {
			response.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(io.LimitReader(response.Body, 20), iotest.ErrReader(io.ErrUnexpectedEOF)), response.Body}
		}
		return response, err
	})
	for times, want := range map[int]error{0: nil, 1: nil, 4: nil, 1000: io.ErrUnexpectedEOF} {
		reads.Store(0)
		cut.Store(int32(times))
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		if want != nil {
			ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
		}
		got, err := s.Receipt(ctx, receipt(0, 5, 1).Key())
		cancel()
		if !errors.Is(err, want) || want == nil && got.Claim != 1 || want != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cut %d times: claim %d, %v, want %v", times, got.Claim, err, want)
		}
	}
}

// What is looked up for a range is just what overlaps it, lowest claim first.
func TestReceiptsProperty(t *testing.T) {
	s, _ := newStore(t)
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // repeatable
	var all []store.Receipt
	for i := range 80 {
		start := random.IntN(13_000)
		r := receipt(start, start+1+random.IntN([]int{5, 50, task.MaxSamples, task.MaxSpan}[i%4]), random.IntN(5))
		r.Samples = nil
		if i%4 == 3 { // a repair
			r.Indices, r.FirstAttempt = []int{r.Start, r.End - 1}, i
		}
		switch err := s.PutReceipt(t.Context(), r); {
		case errors.Is(err, store.ErrExists):
		case err != nil:
			t.Fatal(err)
		default:
			all = append(all, r)
		}
	}
	other := receipt(0, 1000, 1)
	other.Generator = "maze-2" // its name begins alike
	check(t, s.PutReceipt(t.Context(), other))
	for range 100 {
		from := random.IntN(14_000)
		whole := task.Range{Start: from, End: from + random.IntN(200)}
		got, err := s.Receipts(t.Context(), "maze", whole)
		check(t, err)
		want := map[string]bool{}
		for _, r := range all {
			if r.Range().Overlaps(whole) {
				want[r.Key()] = true
			}
		}
		if len(got) != len(want) || !slices.IsSortedFunc(got, func(a, b store.Receipt) int { return a.Claim - b.Claim }) {
			t.Fatalf("%v: %d receipts, want %d", whole, len(got), len(want))
		}
		for _, r := range got {
			if !want[r.Key()] {
				t.Fatalf("%v: %s", whole, r.Key())
			}
		}
	}
	// A receipt comes back as it was written.
	got, err := s.Receipt(t.Context(), other.Key())
	other.Version, other.ReadFrom = 1, other.Key()
	if err != nil || !reflect.DeepEqual(got, other) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A part of a receipt is of the samples in the range alone.
func TestPart(t *testing.T) {
	r := receipt(10, 20, 3)
	for keep, want := range map[task.Range]task.Range{
		{Start: 12, End: 15}: {Start: 12, End: 15},
		{Start: 0, End: 12}:  {Start: 10, End: 12},
		{Start: 18, End: 99}: {Start: 18, End: 20},
	} {
		p := r.Part(keep)
		if p.Range() != want || len(p.Samples) != want.Len() || p.Samples[0].Index != want.Start || len(p.ObjectKeys()) != want.Len() || p.Bytes() != int64(3*want.Len()) {
			t.Errorf("%v: %+v", keep, p)
		}
	}
	if len(r.Samples) != 10 {
		t.Error("the receipt itself was changed")
	}
}

// The store has the checksum of every file and refuses other bytes.
func TestPutFiles(t *testing.T) {
	s, _ := newStore(t)
	list := makeSamples(t, 5, 3, 10, 1000)
	check(t, s.PutFiles(t.Context(), "maze", list))
	for _, item := range list {
		for _, f := range item.Files {
			want, err := os.ReadFile(f.Path)
			check(t, err)
			if got := content(t, s, task.FileKey("maze", item.ID, f.Name)); !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes", item.ID, len(got))
			}
		}
	}
	if n := len(keys(t, s, task.DataPrefix)); n != 6 {
		t.Errorf("%d objects", n)
	}
	changed := makeSamples(t, 50, 1, 10)
	check(t, os.WriteFile(changed[0].Files[0].Path, []byte("0123456789"), 0o600))
	if err := s.PutFiles(t.Context(), "maze", changed); err == nil {
		t.Error("a file that changed after it was checked was stored")
	}
	if n := len(keys(t, s, task.DataPrefix)); n != 6 {
		t.Errorf("%d objects afterwards", n)
	}
}

// A shard has the same bytes whatever the order of its samples, holds their
// files alone, and is one object whether it is small or sent in parts.
func TestPutShard(t *testing.T) {
	for name, size := range map[string]int{"small": 1000, "in parts": 5 << 20} {
		t.Run(name, func(t *testing.T) {
			s, _ := newStore(t)
			list := makeSamples(t, 0, 4, size, 10)
			chunk := task.Chunk{Cell: task.Range{End: 4}, Keep: task.Range{End: 4}}
			first, err := s.PutShard(t.Context(), "maze", chunk, 1, list)
			check(t, err)
			slices.Reverse(list)
			second, err := s.PutShard(t.Context(), "maze", chunk, 1, list)
			check(t, err)
			data := content(t, s, first.Key)
			sum := sha256.Sum256(data)
			if first != second || first.SHA256 != hex.EncodeToString(sum[:]) || first.Size != int64(len(data)) {
				t.Errorf("%+v and %+v, stored are %d bytes", first, second, len(data))
			}
			z, err := gzip.NewReader(bytes.NewReader(data))
			check(t, err)
			var names []string
			for archive := tar.NewReader(z); ; {
				h, err := archive.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				check(t, err)
				if h.Typeflag != tar.TypeReg || h.Uid != 0 || h.Uname != "" || h.ModTime.Unix() != 0 || h.Mode != 0o644 {
					t.Errorf("member %+v", h)
				}
				names = append(names, h.Name)
			}
			if len(names) != 8 || !slices.IsSorted(names) || names[0] != "maze_00000000/file0.bin" {
				t.Errorf("members %v", names)
			}
		})
	}
}

// A shard whose upload fails is not there, and no half of it either.
func TestShardInterrupted(t *testing.T) {
	s, n := newStore(t)
	list := makeSamples(t, 0, 4, 5<<20)
	ctx, cancel := context.WithCancel(t.Context())
	var parts atomic.Int32
	n.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		if r.URL.Query().Get("partNumber") != "" && parts.Add(1) == 2 {
			cancel()
		}
		return send()
	})
	_, err := s.PutShard(ctx, "maze", task.Chunk{Keep: task.Range{End: 4}}, 1, list)
	if !errors.Is(err, context.Canceled) || parts.Load() != 2 {
		t.Errorf("after %d parts: %v", parts.Load(), err)
	}
	if there := keys(t, s, ""); len(there) > 0 {
		t.Errorf("left are %v", there)
	}
	list[3].Files[0].Path += "-gone"
	if _, err := s.PutShard(t.Context(), "maze", task.Chunk{Keep: task.Range{End: 4}}, 1, list); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file is gone: %v", err)
	}
	if there := keys(t, s, ""); len(there) > 0 {
		t.Errorf("left are %v", there)
	}
}

// A sweep deletes what stands at the chunk's indices beyond what is kept, and
// nothing of its neighbours.
func TestSweep(t *testing.T) {
	s, _ := newStore(t)
	check(t, s.PutFiles(t.Context(), "maze", makeSamples(t, 0, 12, 5, 5)))
	near := makeSamples(t, 4, 1, 5)
	near[0].ID = "maze_00000004_x" // no sample id of this domain
	check(t, s.PutFiles(t.Context(), "maze", near))
	check(t, s.PutFiles(t.Context(), "maze-2", makeSamples(t, 4, 1, 5)))
	chunk := task.Chunk{Cell: task.Range{Start: 4, End: 8}, Keep: task.Range{Start: 4, End: 8}}
	_, err := s.PutShard(t.Context(), "maze", chunk, 1, makeSamples(t, 4, 4, 5))
	check(t, err)
	before := keys(t, s, "")

	keep := []string{task.FileKey("maze", "maze_00000005", "file0.bin")}
	check(t, s.Sweep(t.Context(), "maze", "maze", chunk, chunk.Kept(), keep))
	want := slices.DeleteFunc(before, func(key string) bool {
		if slices.Contains(keep, key) {
			return false
		}
		for i := 4; i < 8; i++ {
			if strings.HasPrefix(key, task.FileKey("maze", task.SampleID("maze", i), "")) {
				return true
			}
		}
		return false
	})
	if got := keys(t, s, ""); !slices.Equal(got, want) || len(want) != 12*2+3-7 {
		t.Errorf("left are %d of %d: %v", len(got), len(want), got)
	}
	// A repair's sweep is of its indices alone.
	repair := task.Chunk{Keep: task.Range{Start: 0, End: 12}, Indices: []int{0, 11}, Attempt: 3}
	for claim := range 2 { // it leaves no shard that an earlier holder wrote
		_, err = s.PutShard(t.Context(), "maze", repair, claim+1, makeSamples(t, 0, 1, 5))
		check(t, err)
	}
	check(t, s.Sweep(t.Context(), "maze", "maze", repair, repair.Kept(), []string{task.ShardKey("maze", repair, 2)}))
	if got := keys(t, s, task.ShardPrefix("maze", repair)); !slices.Equal(got, []string{task.ShardKey("maze", repair, 2)}) {
		t.Errorf("shards of the repair: %v", got)
	}
	check(t, s.Delete(t.Context(), []string{task.ShardKey("maze", repair, 2)}))
	for _, key := range keys(t, s, task.DataPrefix+"maze/") {
		if strings.Contains(key, "_00000000/") || strings.Contains(key, "_00000011/") {
			t.Errorf("left is %s", key)
		}
	}
	if n := len(keys(t, s, "")); n != len(want)-4 {
		t.Errorf("left are %d, want %d", n, len(want)-4)
	}
}

// Runs are listed newest first and written once; failure reports are found by
// generator.
func TestRunsAndFailures(t *testing.T) {
	s, _ := newStore(t)
	for _, id := range []string{"20260101t000000.000-a", "20260301t000000.000-b", "20260201t000000.000-c"} {
		check(t, s.PutRun(t.Context(), task.Run{ID: id, Samples: 5}))
	}
	if err := s.PutRun(t.Context(), task.Run{ID: "20260101t000000.000-a", Samples: 6}); !errors.Is(err, store.ErrExists) {
		t.Errorf("written twice: %v", err)
	}
	ids, err := s.Runs(t.Context())
	if err != nil || !slices.Equal(ids, []string{"20260301t000000.000-b", "20260201t000000.000-c", "20260101t000000.000-a"}) {
		t.Errorf("%v, %v", ids, err)
	}
	if _, err := s.Run(t.Context(), "none"); !errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), "run none") {
		t.Errorf("%v", err)
	}
	key, err := s.PutFailure(t.Context(), store.Failure{Generator: "maze", Name: "00000000_00000004", Cause: task.Crashed, Detail: "it fell", MessageID: "m/../1", Receives: 2})
	check(t, err)
	_, err = s.PutFailure(t.Context(), store.Failure{Cause: task.InvalidTask, MessageID: "m2", Message: strings.Repeat("ü", 5000)})
	check(t, err)
	for generator, want := range map[string]int{"maze": 1, task.InvalidFailure: 1, "maz": 0} {
		n := 0
		for o, err := range s.Failures(t.Context(), generator) {
			check(t, err)
			f, err := s.Failure(t.Context(), o.Key)
			check(t, err)
			if len(f.Message) > 4096 || f.Cause == "" {
				t.Errorf("%+v", f)
			}
			n++
		}
		if n != want {
			t.Errorf("%s: %d reports", generator, n)
		}
	}
	if f, err := s.Failure(t.Context(), key); err != nil || f.Detail != "it fell" || strings.Contains(key, "..") {
		t.Errorf("%s: %+v, %v", key, f, err)
	}
}

// What is not what the pipeline writes is named, not taken.
func TestDamagedObject(t *testing.T) {
	s, _ := newStore(t)
	list := makeSamples(t, 0, 1, 10)
	list[0].Files[0].Name = "x.json"
	check(t, s.PutFiles(t.Context(), "maze", list))
	key := task.FileKey("maze", list[0].ID, "x.json")
	if _, err := s.Receipt(t.Context(), key); err == nil || !strings.Contains(err.Error(), key) {
		t.Errorf("%v", err)
	}
}
