package dataset

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/debug"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// endless is a bucket that makes up its objects when they are asked for: a generator
// with as many samples as are wanted, in chunks of 20, of six files each.
type endless struct{ samples int }

const filesOfEndless = 6

func (e endless) receipt(n int) store.Receipt {
	r := store.Receipt{Generator: "g", RunID: "r", RunSeed: 7, ChunkSize: 20, ChunkStart: 20 * n, Start: 20 * n,
		End: 20*n + 20, Epoch: 1, Format: task.Files, Domain: "maze",
		Command: []string{"python", "examples/generate.py", "--num-samples", "20", "--seed", fmt.Sprint(n), "--output",
			"output"}}
	for i := r.Start; i < r.End; i++ {
		s := store.ReceiptSample{ID: task.SampleID("maze", i), Index: i, Fingerprint: fmt.Sprintf("%032x", i)}
		for f := range filesOfEndless {
			s.Files = append(s.Files, store.ReceiptFile{Name: fmt.Sprintf("file_%d.png", f), Size: int64(1000 + i%7),
				SHA256: fmt.Sprintf("%064x", i*8+f)})
		}
		r.Samples = append(r.Samples, s)
	}
	return r
}

// key is the n-th object below a prefix, and its size.
func (e endless) key(prefix string, n int) (key string, size int, ok bool) {
	switch {
	case prefix == task.DefaultDataset.CellsPrefix("g") && n < e.samples/20:
		return fmt.Sprintf("%s%08d_%08d.json", prefix, 20*n, 20*n+19), 1, true
	case n < e.samples*filesOfEndless:
		i := n / filesOfEndless
		key = task.DefaultDataset.FileKey("g", task.SampleID("maze", i), fmt.Sprintf("file_%d.png", n%filesOfEndless))
		return key, 1000 + i%7, strings.HasPrefix(key, prefix)
	}
	return "", 0, false
}

func (e endless) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("list-type") != "2" {
		var first int
		if _, err := fmt.Sscanf(r.URL.Path, "/bucket/"+task.DefaultDataset.CellsPrefix("g")+"%08d_", &first); err != nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		text, _ := (&store.Cell{Version: 1, Generator: "g", Start: first, End: first + 20, Epoch: 1,
			Receipts: []store.Receipt{e.receipt(first / 20)}}).Encode()
		_, _ = w.Write(text)
		return
	}
	type content struct {
		Key  string
		Size int
	}
	answer := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		Contents              []content
	}{}
	at := 0
	if after := q.Get("start-after"); after != "" {
		at = sort.Search(e.samples*filesOfEndless, func(n int) bool {
			key, _, ok := e.key(q.Get("prefix"), n)
			return !ok || key > after
		})
	}
	_, _ = fmt.Sscan(q.Get("continuation-token"), &at)
	for range 1000 {
		key, size, ok := e.key(q.Get("prefix"), at)
		if !ok {
			break
		}
		answer.Contents = append(answer.Contents, content{key, size})
		at++
	}
	if _, _, more := e.key(q.Get("prefix"), at); more {
		answer.IsTruncated, answer.NextContinuationToken = true, fmt.Sprint(at)
	}
	_ = xml.NewEncoder(w).Encode(answer)
}

// A check takes little memory for each sample: less than 200 MB for 500,000 samples
// of one generator in 25,000 receipts and 3,000,000 objects. By default fewer
// are checked; SCALE=1 checks all.
func TestMemory(t *testing.T) {
	samples, limit := 20_000, uint64(40<<20)
	if os.Getenv("SCALE") == "1" {
		samples, limit = 500_000, 200_000_000
	}
	// What is live counts, not what a busy machine has not collected yet.
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(int64(limit) * 9 / 10))
	server := httptest.NewServer(endless{samples})
	defer server.Close()
	client := s3.New(s3.Options{BaseEndpoint: &server.URL, Region: "us-east-2", HTTPClient: store.HTTPClient(nil),
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}, store.ClientOptions)

	peak, done := make(chan uint64), make(chan struct{})
	go func() {
		var most uint64
		var m runtime.MemStats
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse+m.StackInuse)
			select {
			case <-done:
				tick.Stop()
				peak <- most
				return
			case <-tick.C:
			}
		}
	}()
	began := time.Now()
	var stages []string
	report, err := (&Checker{Store: store.New(client, "bucket"), Progress: func(stage string, _, _ int) {
		if name, _, _ := strings.Cut(stage, " of"); len(stages) == 0 || stages[len(stages)-1] != name {
			stages = append(stages, name)
		}
	}}).Generator(t.Context(), "g", task.Range{End: samples})
	close(done)
	used := <-peak
	if err != nil {
		t.Fatal(err)
	}
	if !report.Complete || report.Samples != samples || report.Distinct != samples {
		t.Errorf("%+v", report)
	}
	t.Logf("%d samples: %d MB at most, %.1f s, stages %v", samples, used/1_000_000, time.Since(began).Seconds(), stages)
	if used > limit {
		t.Errorf("it took %d MB, more than %d", used/1_000_000, limit/1_000_000)
	}
}
