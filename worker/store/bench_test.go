package store_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// BenchmarkUpload compares the upload of a task's 500 files with that of one
// after the other, where each request takes 30 ms longer than on loopback.
func BenchmarkUpload(b *testing.B) {
	const delay, samples, size = 30 * time.Millisecond, 100, 10_000
	names := []string{"final_frame.png", "first_frame.png", "ground_truth.mp4", "metadata.json", "prompt.txt"}
	dir := b.TempDir()
	server, err := s3server.Start(b.Context(), s3server.Config{Dir: filepath.Join(dir, "objects"), Meta: filepath.Join(dir, "metadata"),
		Address: "127.0.0.1:0", Bucket: "bucket", Region: "us-east-2", AccessKey: "a", SecretKey: "b"}, os.Stderr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = server.Close() })
	far := &network{}
	far.set(func(_ *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		time.Sleep(delay)
		return send()
	})
	st := store.New(s3.New(s3.Options{BaseEndpoint: aws.String(server.URL()), Region: "us-east-2", HTTPClient: far,
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}, store.ClientOptions), "bucket")
	var all []sample.Sample
	for i := range samples {
		s := sample.Sample{ID: fmt.Sprintf("d_%08d", i)}
		for _, name := range names {
			path, text := filepath.Join(dir, s.ID+name), make([]byte, size)
			copy(text, s.ID+name)
			if err := os.WriteFile(path, text, 0o600); err != nil {
				b.Fatal(err)
			}
			sum := sha256.Sum256(text)
			s.Files = append(s.Files, sample.File{Name: name, Path: path, Size: size, SHA256: hex.EncodeToString(sum[:])})
		}
		all = append(all, s)
	}
	put := func(generator string, list ...sample.Sample) {
		if err := st.PutFiles(b.Context(), generator, list); err != nil {
			b.Fatal(err)
		}
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
