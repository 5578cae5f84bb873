// Package s3test gives tests a bucket of the local stack's S3 endpoint, and committed samples in it. TestMain must call
// s3server.Main.
package s3test

import (
	"io"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// Name is every bucket's: each has an endpoint of its own.
const Name = "bucket"

const region, accessKey, secretKey = "us-east-2", "a", "b"

// Bucket is a bucket that lives as long as its test.
type Bucket struct {
	URL    string // of the endpoint
	Folder string // in which the objects lie as plain files
}

// New starts an endpoint with an empty bucket.
func New(t testing.TB) *Bucket {
	t.Helper()
	dir := Folder(t)
	server, err := s3server.Start(t.Context(), s3server.Config{Dir: filepath.Join(dir, "objects"),
		Meta: filepath.Join(dir, "metadata"), Address: "127.0.0.1:0", Bucket: Name, Region: region, AccessKey: accessKey,
		SecretKey: secretKey}, io.Discard)
	check(t, err)
	t.Cleanup(func() { _ = server.Close() })
	return &Bucket{URL: server.URL(), Folder: filepath.Join(dir, "objects", Name)}
}

// Client returns a client as the product has it, or one that asks through another HTTP client.
func (b *Bucket) Client(through aws.HTTPClient) *s3.Client { return Client(b.URL, through) }

// Store returns a store of the bucket, with such a client.
func (b *Bucket) Store(through aws.HTTPClient) *store.Store {
	return store.New(b.Client(through), Name)
}

// Client returns a client of an endpoint whose account is that of all buckets here.
func Client(url string, through aws.HTTPClient) *s3.Client {
	if through == nil {
		through = store.HTTPClient(nil)
	}
	return s3.New(s3.Options{BaseEndpoint: &url, Region: region, HTTPClient: through,
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, "")}, store.ClientOptions)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
