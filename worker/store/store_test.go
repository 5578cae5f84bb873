package store_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestMain(m *testing.M) {
	s3server.Main()
	// They wait for slow and silent servers most of the time.
	if err := flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

var quick = store.HTTPClient(nil)

// network is the way to the bucket; tests cut it.
type network struct {
	client *s3.Client // that goes over it
	mu     sync.Mutex
	fault  func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error)
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

// loseAnswers loses the answer to every n-th request that was carried out.
func (n *network) loseAnswers(every int64) {
	var requests atomic.Int64
	n.set(func(_ *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		response, err := send()
		if err == nil && requests.Add(1)%every == 0 {
			response.Body.Close()
			return nil, io.ErrUnexpectedEOF
		}
		return response, err
	})
}

// newStore returns the store of a fresh bucket in a real server.
func newStore(t testing.TB) (*store.Store, *network) {
	t.Helper()
	n := &network{}
	n.client = s3test.New(t).Client(n)
	return store.New(n.client, s3test.Name), n
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
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
			f := sample.File{Name: fmt.Sprintf("file%d.bin", j), Size: int64(size),
				Path: filepath.Join(dir, fmt.Sprintf("%d_%d", i, j))}
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
	data, err := s.Read(t.Context(), key)
	check(t, err)
	return data
}

// An answer may be cut off after the object's first bytes have come. It is asked for
// again, like a request that failed, until the time is up or it was the sixth.
func TestCutAnswer(t *testing.T) {
	t.Parallel()
	s, n := newStore(t)
	commit(t, s, task.Range{End: 5}, 0, 1, 2)
	key := task.DefaultDataset.CellKey("maze", task.Range{End: 5})
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
		got, err := s.Cell(ctx, key)
		cancel()
		if !errors.Is(err, want) || want == nil && got.Epoch != 1 || want != nil &&
			!errors.Is(err, context.DeadlineExceeded) && reads.Load() != 6 {
			t.Errorf("cut %d times, read %d times: %+v, %v, want %v", times, reads.Load(), got, err, want)
		}
	}
}

// The store has the checksum of every file and refuses other bytes.
func TestPutFiles(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	list := makeSamples(t, 5, 3, 10, 1000)
	check(t, s.PutFiles(t.Context(), "maze", list))
	for _, item := range list {
		for _, f := range item.Files {
			want, err := os.ReadFile(f.Path)
			check(t, err)
			if got := content(t, s, task.DefaultDataset.FileKey("maze", item.ID, f.Name)); !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes", item.ID, len(got))
			}
		}
	}
	if n := len(keys(t, s, task.DataKind)); n != 6 {
		t.Errorf("%d objects", n)
	}
	changed := makeSamples(t, 50, 1, 10)
	check(t, os.WriteFile(changed[0].Files[0].Path, []byte("0123456789"), 0o600))
	if err := s.PutFiles(t.Context(), "maze", changed); err == nil {
		t.Error("a file that changed after it was checked was stored")
	}
	if n := len(keys(t, s, task.DataKind)); n != 6 {
		t.Errorf("%d objects afterwards", n)
	}
}

// A shard has the same bytes whatever the order of its samples, holds their
// files alone, and is one object whether it is small or sent in parts.
func TestPutShard(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
	if _, err := s.PutShard(t.Context(), "maze", task.Chunk{Keep: task.Range{End: 4}}, 1, list); !errors.Is(err,
		os.ErrNotExist) {
		t.Errorf("a file is gone: %v", err)
	}
	if there := keys(t, s, ""); len(there) > 0 {
		t.Errorf("left are %v", there)
	}
}

// Runs are listed newest first and written once; failure reports are found by
// generator.
func TestRunsAndFailures(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	for _, id := range []string{"20260101t000000.000-a", "20260301t000000.000-b", "20260201t000000.000-c"} {
		check(t, s.PutRun(t.Context(), task.Run{ID: id, Samples: 5}))
	}
	if err := s.PutRun(t.Context(), task.Run{ID: "20260101t000000.000-a", Samples: 6}); !errors.Is(err, store.ErrExists) {
		t.Errorf("written twice: %v", err)
	}
	ids, err := s.Runs(t.Context())
	if err != nil || !slices.Equal(ids, []string{"20260301t000000.000-b", "20260201t000000.000-c",
		"20260101t000000.000-a"}) {
		t.Errorf("%v, %v", ids, err)
	}
	if _, err := s.Run(t.Context(), "none"); !errors.Is(err, store.ErrNotFound) ||
		!strings.Contains(err.Error(), "run none") {
		t.Errorf("%v", err)
	}
	key, err := s.PutFailure(t.Context(), store.Failure{Generator: "maze", Name: "00000000_00000004", Cause: task.Crashed,
		Detail: "it fell", MessageID: "m/../1", Receives: 2})
	check(t, err)
	_, err = s.PutFailure(t.Context(), store.Failure{Cause: task.InvalidTask, MessageID: "m2",
		Message: strings.Repeat("ü", 5000)})
	check(t, err)
	for generator, want := range map[string]int{"maze": 1, task.InvalidFailure: 1, "maz": 0} {
		n := 0
		for o, err := range s.List(t.Context(), s.Dataset().FailuresPrefix(generator), "") {
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
	t.Parallel()
	s, _ := newStore(t)
	list := makeSamples(t, 0, 1, 10)
	list[0].Files[0].Name = "x.json"
	check(t, s.PutFiles(t.Context(), "maze", list))
	key := task.DefaultDataset.FileKey("maze", list[0].ID, "x.json")
	if _, err := s.Cell(t.Context(), key); err == nil || !strings.Contains(err.Error(), key) {
		t.Errorf("%v", err)
	}
}

// The bucket's clock is read with the client's own settings: an answer's checksum is asked for only if those say so.
func TestAheadKeepsValidation(t *testing.T) {
	t.Parallel()
	_, n := newStore(t)
	for validation, want := range map[aws.ResponseChecksumValidation]string{
		aws.ResponseChecksumValidationWhenRequired: "", aws.ResponseChecksumValidationWhenSupported: "ENABLED"} {
		options := n.client.Options()
		options.ResponseChecksumValidation = validation
		var modes []string
		n.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
			modes = append(modes, r.Header.Get("X-Amz-Checksum-Mode"))
			return send()
		})
		if _, ok := store.New(s3.New(options), s3test.Name).Ahead(t.Context()); !ok {
			t.Error("no time in the answer")
		}
		if !slices.Equal(modes, []string{want}) {
			t.Errorf("%v: %q", validation, modes)
		}
	}
}
