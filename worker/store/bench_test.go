package store_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// BenchmarkUpload compares the upload of a task's 500 files with that of one
// after the other, where each request takes 30 ms longer than on loopback.
func BenchmarkUpload(b *testing.B) {
	const delay, size = 30 * time.Millisecond, 10_000
	st, far := newStore(b)
	far.set(func(_ *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		time.Sleep(delay)
		return send()
	})
	all := makeSamples(b, 0, 100, size, size, size, size, size)
	put := func(generator string, list ...sample.Sample) {
		check(b, st.PutFiles(b.Context(), generator, list))
	}
	var faster, together []float64
	for n := range max(3, b.N) {
		began := time.Now()
		put(fmt.Sprintf("together-%d", n), all...)
		took := time.Since(began)
		began = time.Now()
		for _, s := range all {
			for _, f := range s.Files {
				put(fmt.Sprintf("one-%d", n), sample.Sample{ID: s.ID, Files: []sample.File{f}})
			}
		}
		faster = append(faster, float64(time.Since(began))/float64(took))
		together = append(together, took.Seconds())
	}
	slices.Sort(faster)
	slices.Sort(together)
	b.ReportMetric(faster[len(faster)/2], "times-faster")
	b.ReportMetric(together[len(together)/2], "s/500-files")
	b.ReportMetric(0, "ns/op")
}
