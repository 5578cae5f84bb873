package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// narrow is a server that takes the first PUTs of each window, up to a limit, and
// answers the others as S3 does. They take requestTime on average.
type narrow struct {
	limit   int
	window  time.Duration
	began   time.Time
	mu      sync.Mutex
	taken   map[int]int // by window
	refused int
}

func (n *narrow) Do(r *http.Request) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	n.mu.Lock()
	window := int(time.Since(n.began) / n.window)
	code, body := http.StatusOK, ""
	if n.taken[window] < n.limit {
		n.taken[window]++
	} else {
		n.refused++
		code, body = http.StatusServiceUnavailable, "<Error><Code>SlowDown</Code></Error>"
	}
	n.mu.Unlock()
	time.Sleep(time.Duration((0.5 + rand.Float64()) * float64(requestTime)))
	return &http.Response{StatusCode: code, Header: http.Header{}, Request: r,
		Body: io.NopCloser(strings.NewReader(body))}, nil
}

// The partition of the simulation refuses as many requests, and for as long, as the
// product's store and the SDK's retries are refused by a server that takes so many a
// second, with a clock that does not wait.
func TestPartition(t *testing.T) {
	const files = 60 // of a chunk
	var content [1]byte
	file := sample.File{Name: "prompt.txt", Path: filepath.Join(t.TempDir(), "prompt.txt"), Size: int64(len(content))}
	if err := os.WriteFile(file.Path, content[:], 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content[:])
	file.SHA256 = hex.EncodeToString(sum[:])
	chunk := sample.Sample{ID: "x_00000000", Files: slices.Repeat([]sample.File{file}, files)}

	const often = 200 // the simulation, to know how its results differ
	for _, c := range []struct{ percent, perSecond, window, chunks int }{
		{30, 100, ticks, 2}, {50, 60, ticks, 3}, {70, 60, ticks, 12}, {70, 60, 1, 9},
	} {
		var rounds [3]figures // one file may wait long by chance, which the middle one of three does not show
		for i := range rounds {
			synctest.Test(t, func(t *testing.T) {
				server := &narrow{began: time.Now(), taken: map[int]int{},
					limit: c.perSecond * c.window / ticks, window: time.Duration(c.window) * requestTime}
				ends := server.store(t, c.chunks, chunk)
				rounds[i] = figures{ends: ends, refused: server.refused, taken: c.chunks * files}
			})
		}
		var list []figures
		for n := range often {
			p := &partition{perSecond: c.perSecond, window: c.window, taken: func(*upload) {},
				random: rand.New(rand.NewPCG(1, uint64(n)))}
			f := figures{taken: c.chunks * files}
			for range c.chunks {
				p.put(nil, files, func() { f.ends = append(f.ends, float64(p.now)/ticks) })
			}
			for p.waiting > 0 {
				p.step()
			}
			f.refused = p.refusals
			list = append(list, f)
		}
		if part := 100 * list[0].part(); math.Abs(part-float64(c.percent)) > 8 {
			t.Errorf("%.0f %% are refused, %d were meant", part, c.percent)
		}
		for what, of := range map[string]func(figures) float64{
			"part refused": figures.part, "seconds for a chunk": figures.mean, "seconds for all": figures.last,
		} {
			mean, deviation := 0.0, 0.0
			for _, f := range list {
				mean += of(f) / often
			}
			for _, f := range list {
				deviation += (of(f) - mean) * (of(f) - mean) / often
			}
			deviation = math.Sqrt(deviation)
			measured := []float64{of(rounds[0]), of(rounds[1]), of(rounds[2])}
			slices.Sort(measured)
			t.Logf("%d %%: %s: %.2f, simulated %.2f ± %.2f", c.percent, what, measured, mean, deviation)
			if math.Abs(measured[1]-mean) > 5*deviation+0.05*mean { // ticks are coarse
				t.Errorf("%d %%: %s: %.2f, simulated %.2f ± %.2f", c.percent, what, measured, mean, deviation)
			}
		}
	}
}

// store puts chunks side by side, each with a client of its own, and returns when
// each was stored, in seconds.
func (n *narrow) store(t *testing.T, chunks int, chunk sample.Sample) (ends []float64) {
	address := "http://s3"
	var group sync.WaitGroup
	for range chunks {
		client := s3.New(s3.Options{BaseEndpoint: &address, Region: "us-east-2", HTTPClient: n,
			Retryer:     store.UnlimitedRetries(),
			Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}, store.ClientOptions)
		group.Go(func() {
			if err := store.New(client, "bucket").PutFiles(t.Context(), "g", []sample.Sample{chunk}); err != nil {
				t.Error(err)
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			ends = append(ends, time.Since(n.began).Seconds())
		})
	}
	group.Wait()
	return ends
}

// figures are what chunks saw that were stored side by side.
type figures struct {
	refused, taken int
	ends           []float64 // of the chunks, in seconds
}

func (f figures) part() float64 { return float64(f.refused) / float64(f.refused+f.taken) }
func (f figures) last() float64 { return slices.Max(f.ends) }
func (f figures) mean() float64 {
	sum := 0.0
	for _, end := range f.ends {
		sum += end
	}
	return sum / float64(len(f.ends))
}
