package web_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// fill puts receipts of 50 samples each into a bucket, 500,000 samples in all, without the samples' files.
func (b *bucket) fill(t testing.TB, generators int) {
	t.Helper()
	const samples, chunk = 500_000, 50
	for n := range generators {
		g := s3test.Generator{Name: fmt.Sprintf("g%02d-generator", n), Domain: "maze", Samples: samples / generators,
			Chunk: chunk, Commit: fmt.Sprintf("%040x", n), Media: videos("h264"), Receipt: of("run-1")}
		s3test.Pin(t, b.store.In("v1"), task.Files, &g)
		dir := filepath.Join(b.Folder, filepath.FromSlash(task.DefaultDataset.CellsPrefix(g.Name)))
		check(t, os.MkdirAll(dir, 0o755))
		for start := 0; start < g.Samples; start += chunk {
			cell := task.Range{Start: start, End: start + chunk}
			list := make([]sample.Sample, chunk)
			for i := range list {
				s := &list[i]
				s.Index, s.ID = start+i, task.SampleID(g.Domain, start+i)
				s.Fingerprint = fmt.Sprintf("%032x", 7919*(start+i)+n)
				for _, name := range []string{"final_frame.png", "first_frame.png", "ground_truth.mp4", "metadata.json",
					"prompt.txt", "rubric.txt"} {
					f := sample.File{Name: name, Size: int64(1000 + (start+i)*31%9973), SHA256: fmt.Sprintf("%064x", start+i)}
					f.Media = g.Media(0, name)
					s.Files = append(s.Files, f)
				}
			}
			c := &store.Cell{Version: 1, Generator: g.Name, Start: start, End: start + chunk, Epoch: 1}
			c.Receipts = []store.Receipt{g.NewReceipt("v1", task.Files, c, list)}
			text, err := c.Encode()
			check(t, err)
			check(t, os.WriteFile(filepath.Join(dir, cell.String()+".json"), text, 0o644))
		}
	}
}

// memory is what of this process is in memory, in MB, after what can be freed was.
func memory(b *testing.B) (heap, resident float64) {
	b.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	check(b, err)
	var size, pages int
	_, err = fmt.Sscan(string(text), &size, &pages)
	check(b, err)
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6, float64(pages*os.Getpagesize()) / 1e6
}

// listed is a server that has listed all receipts.
func listed(b *testing.B, bucket *bucket) *site {
	s := bucket.serve(b)
	for !read[found](s, "/api/view").Complete {
		time.Sleep(10 * time.Millisecond)
	}
	return s
}

// BenchmarkHalfMillion shows 500,000 samples of 10,000 receipts: the first page of the grid, steps of its scroll bar to
// anywhere, ten viewers who scroll at once, and all in another order.
func BenchmarkHalfMillion(b *testing.B) {
	for _, generators := range []int{1, 50} {
		b.Run(fmt.Sprintf("generators=%d", generators), func(b *testing.B) {
			bucket := newBucket(b)
			bucket.fill(b, generators)
			var s *site
			page := func(s *site, from int) []shown {
				return read[struct{ Items []shown }](s, fmt.Sprintf("/api/samples?from=%d&count=50", from)).Items
			}
			b.Run("first-page", func(b *testing.B) {
				var took []time.Duration
				var heap, resident, requests float64
				for b.Loop() {
					heapBefore, residentBefore := memory(b)
					s = bucket.serve(b)
					before, began := bucket.requests.Load(), time.Now()
					s.get("/samples").want(b, 200)
					read[found](s, "/api/view")
					if items := page(s, 0); len(items) != 50 || items[49].ID == "" {
						b.Fatalf("the first page has %d samples", len(items))
					}
					took = append(took, time.Since(began))
					requests = float64(bucket.requests.Load() - before)
					for began := time.Now(); !read[found](s, "/api/view").Complete && time.Since(began) < time.Minute; {
						time.Sleep(10 * time.Millisecond)
					}
					if f := read[found](s, "/api/view"); f.Total != 500_000 {
						b.Fatalf("%d samples are listed", f.Total)
					}
					_, residentAfter := memory(b)
					heapAfter, _ := memory(b)
					heap, resident = max(heap, heapAfter-heapBefore), max(resident, residentAfter-residentBefore)
				}
				slices.Sort(took)
				if page := took[len(took)/2]; page > 300*time.Millisecond || resident > 60 {
					b.Errorf("the first page took %s and %.0f MB", page, resident)
				}
				b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "ms/page")
				b.ReportMetric(heap, "more-heap-MB")
				b.ReportMetric(resident, "more-resident-MB")
				b.ReportMetric(requests, "requests")
				b.ReportMetric(0, "ns/op")
			})
			b.Run("scroll", func(b *testing.B) {
				s = listed(b, bucket)
				var most int64
				var took []time.Duration
				for b.Loop() {
					before, began := bucket.requests.Load(), time.Now()
					page(s, 50*rand.IntN(10_000))
					took = append(took, time.Since(began))
					most = max(most, bucket.requests.Load()-before)
				}
				slices.Sort(took)
				if most > 3 { // a receipt, and a listing if the last one is old
					b.Errorf("a step of the scroll bar took %d requests to the bucket", most)
				}
				b.ReportMetric(float64(most), "most-requests/step")
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1e3, "ms/step")
				b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1e3, "p95-ms/step")
				b.ReportMetric(0, "ns/op")
			})
			b.Run("ten-viewers", func(b *testing.B) {
				s = listed(b, bucket)
				var mu sync.Mutex
				var took []time.Duration
				for b.Loop() {
					var group sync.WaitGroup
					for range 10 {
						c := s.viewer()
						group.Go(func() {
							for range 20 {
								began := time.Now()
								answer, err := c.Get(fmt.Sprintf("%s/api/samples?from=%d&count=50", s.base, 50*rand.IntN(10_000)))
								if err != nil {
									b.Error(err)
									return
								}
								var data struct{ Items []shown }
								if err := json.NewDecoder(answer.Body).Decode(&data); err != nil || len(data.Items) != 50 {
									b.Errorf("%d samples: %v", len(data.Items), err)
								}
								answer.Body.Close()
								mu.Lock()
								took = append(took, time.Since(began))
								mu.Unlock()
							}
						})
					}
					group.Wait()
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1e3, "ms/step")
				b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1e3, "p95-ms/step")
				b.ReportMetric(0, "ns/op")
			})
			b.Run("sorted", func(b *testing.B) {
				var took time.Duration
				var more float64
				for b.Loop() {
					before, _ := memory(b)
					s, began := bucket.serve(b), time.Now()
					for !read[found](s, "/api/view?sort=-size").Complete {
						time.Sleep(100 * time.Millisecond)
					}
					took = time.Since(began)
					after, _ := memory(b)
					more = after - before
				}
				b.ReportMetric(took.Seconds(), "s/order")
				b.ReportMetric(more, "more-heap-MB")
				b.ReportMetric(0, "ns/op")
			})
		})
	}
}
