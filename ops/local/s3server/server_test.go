package s3server

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	workerstore "github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func start(t *testing.T, c Config) *Server {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	c.Meta = filepath.Join(c.Dir, "..", "meta-of-"+filepath.Base(c.Dir))
	t.Cleanup(func() { _ = os.RemoveAll(c.Meta) })
	c.Address, c.Bucket, c.Region, c.AccessKey, c.SecretKey = "127.0.0.1:0", "bucket", "us-east-2", "key", "secret"
	s, err := Start(t.Context(), c, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func client(url string) *s3.Client {
	return s3.New(s3.Options{BaseEndpoint: &url, UsePathStyle: true, Region: "us-east-2",
		Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""), RetryMaxAttempts: 1,
		HTTPClient: workerstore.HTTPClient(nil)})
}

// store is a client and its bucket.
type store struct {
	*s3.Client
	bucket string
}

func (s store) put(ctx context.Context, key string, body []byte, once bool) error {
	sum := sha256.Sum256(body)
	in := &s3.PutObjectInput{Bucket: &s.bucket, Key: &key, Body: bytes.NewReader(body),
		ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:]))}
	if once {
		in.IfNoneMatch = aws.String("*")
	}
	_, err := s.PutObject(ctx, in)
	return err
}

func (s store) get(t *testing.T, key string) []byte {
	t.Helper()
	out, err := s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	data, err := io.ReadAll(out.Body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func status(err error) int {
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

func TestBehaviour(t *testing.T) {
	for _, sidecar := range []bool{false, true} {
		t.Run(fmt.Sprintf("sidecar %v", sidecar), func(t *testing.T) {
			suite(t, store{client(start(t, Config{Sidecar: sidecar}).URL()), "bucket"}, false)
		})
	}
}

// The same checks pass against a server that nobody here wrote.
func TestBehaviourOfMoto(t *testing.T) {
	endpoint := os.Getenv("MOTO_ENDPOINT")
	if endpoint == "" {
		t.Skip("MOTO_ENDPOINT is not set: no moto server to compare with")
	}
	s := store{client(endpoint), fmt.Sprintf("bucket-%d", time.Now().UnixNano())}
	if _, err := s.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &s.bucket,
		CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: "us-east-2"}}); err != nil {
		t.Fatal(err)
	}
	suite(t, s, true)
}

// suite checks a bucket. moto neither verifies nor returns checksums, and looks for an object and
// writes it in two steps; what depends on that is not asked of it.
func suite(t *testing.T, s store, moto bool) {
	t.Run("put, get, head, delete", func(t *testing.T) {
		for _, key := range []string{"a/b c+d/é%.txt", "empty", "a/b/c/d/e/f/g"} {
			body := []byte("content of " + key)
			if key == "empty" {
				body = nil
			}
			if err := s.put(t.Context(), key, body, false); err != nil {
				t.Fatal(err)
			}
			if got := s.get(t, key); !bytes.Equal(got, body) {
				t.Errorf("%s holds %q", key, got)
			}
			head, err := s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.bucket, Key: &key,
				ChecksumMode: types.ChecksumModeEnabled})
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(body)
			if aws.ToInt64(head.ContentLength) != int64(len(body)) || aws.ToString(head.ETag) == "" || !moto &&
				aws.ToString(head.ChecksumSHA256) != base64.StdEncoding.EncodeToString(sum[:]) {
				t.Errorf("%s: head %v %v %v", key, aws.ToInt64(head.ContentLength), aws.ToString(head.ETag),
					aws.ToString(head.ChecksumSHA256))
			}
			for range 2 { // the second one deletes nothing, and is no error
				if _, err := s.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &s.bucket, Key: &key}); err != nil {
					t.Error(err)
				}
			}
			_, err = s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: &key})
			var none *types.NoSuchKey
			if !errors.As(err, &none) {
				t.Errorf("%s is deleted: %v", key, err)
			}
		}
	})
	t.Run("range", func(t *testing.T) {
		if err := s.put(t.Context(), "range", []byte("0123456789"), false); err != nil {
			t.Fatal(err)
		}
		out, err := s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String("range"),
			Range: aws.String("bytes=2-4")})
		if err != nil {
			t.Fatal(err)
		}
		defer out.Body.Close()
		if data, _ := io.ReadAll(out.Body); string(data) != "234" {
			t.Errorf("got %q", data)
		}
	})
	if !moto { // which verifies no checksums
		t.Run("wrong checksums store nothing", func(t *testing.T) {
			wrong := sha256.Sum256([]byte("other"))
			_, err := s.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &s.bucket, Key: aws.String("wrong"),
				Body: strings.NewReader("body"), ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(wrong[:]))})
			if status(err) != http.StatusBadRequest {
				t.Errorf("a wrong SHA-256: %v", err)
			}
			if _, err := s.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.bucket, Key: aws.String("wrong")}); status(
				err) != http.StatusNotFound {
				t.Errorf("it was stored all the same: %v", err)
			}
		})
	}
	t.Run("once", func(t *testing.T) {
		if err := s.put(t.Context(), "once", []byte("first"), true); err != nil {
			t.Fatal(err)
		}
		if err := s.put(t.Context(), "once", []byte("second"), true); status(err) != http.StatusPreconditionFailed {
			t.Errorf("the second put: %v", err)
		}
		if got := s.get(t, "once"); string(got) != "first" {
			t.Errorf("it holds %q", got)
		}
	})
	t.Run("list", func(t *testing.T) {
		const n = 1205
		var group sync.WaitGroup
		limit := make(chan struct{}, 16)
		for i := range n {
			limit <- struct{}{}
			group.Go(func() {
				defer func() { <-limit }()
				if err := s.put(t.Context(), fmt.Sprintf("list/%02d/%05d", i%7, i), []byte("x"), false); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		list := func(in *s3.ListObjectsV2Input) (keys, folders []string) {
			in.Bucket = &s.bucket
			for pages := s3.NewListObjectsV2Paginator(s, in); pages.HasMorePages(); {
				page, err := pages.NextPage(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range page.Contents {
					keys = append(keys, aws.ToString(o.Key))
				}
				for _, p := range page.CommonPrefixes {
					folders = append(folders, aws.ToString(p.Prefix))
				}
			}
			return keys, folders
		}
		if keys, _ := list(&s3.ListObjectsV2Input{Prefix: aws.String("list/")}); len(keys) != n {
			t.Errorf("%d keys, want %d", len(keys), n)
		} else {
			for i := 1; i < n; i++ {
				if keys[i-1] >= keys[i] {
					t.Fatalf("%s comes before %s", keys[i-1], keys[i])
				}
			}
		}
		if keys, _ := list(&s3.ListObjectsV2Input{Prefix: aws.String("list/0"), StartAfter: aws.String("list/05/99999"),
			MaxKeys: aws.Int32(50)}); len(keys) != n/7 {
			t.Errorf("%d keys after the start, want %d", len(keys), n/7)
		}
		if keys, folders := list(&s3.ListObjectsV2Input{Prefix: aws.String("list/"), Delimiter: aws.String("/")}); len(
			keys) != 0 || len(folders) != 7 {
			t.Errorf("%d keys and %d folders, want 0 and 7", len(keys), len(folders))
		}
	})
	t.Run("multipart", func(t *testing.T) {
		part := make([]byte, 6<<20)
		_, _ = rand.Read(part)
		key := "large"
		created, err := s.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &s.bucket, Key: &key})
		if err != nil {
			t.Fatal(err)
		}
		var done []types.CompletedPart
		for n := range int32(2) {
			out, err := s.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: &s.bucket, Key: &key, UploadId: created.UploadId,
				PartNumber: aws.Int32(n + 1), Body: bytes.NewReader(part)})
			if err != nil {
				t.Fatal(err)
			}
			done = append(done, types.CompletedPart{PartNumber: aws.Int32(n + 1), ETag: out.ETag,
				ChecksumCRC32: out.ChecksumCRC32})
		}
		if _, err := s.HeadObject(t.Context(),
			&s3.HeadObjectInput{Bucket: &s.bucket, Key: &key}); status(err) != http.StatusNotFound {
			t.Errorf("it is there before it is complete: %v", err)
		}
		_, err = s.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{Bucket: &s.bucket, Key: &key,
			UploadId: created.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: done}})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.get(t, key); !bytes.Equal(got, append(part, part...)) {
			t.Errorf("%d bytes came back, other ones", len(got))
		}
	})
	if moto {
		return
	}
	t.Run("one of many conditional puts wins", func(t *testing.T) {
		for round := range 25 {
			key := fmt.Sprintf("race/%d", round)
			var wins atomic.Int32
			var winner atomic.Value
			var group sync.WaitGroup
			for n := range 16 {
				group.Go(func() {
					body := fmt.Sprintf("writer %d", n)
					switch err := s.put(t.Context(), key, []byte(body), true); {
					case err == nil:
						wins.Add(1)
						winner.Store(body)
					case status(err) != http.StatusPreconditionFailed && status(err) != http.StatusConflict:
						t.Error(err)
					}
				})
			}
			group.Wait()
			if wins.Load() != 1 {
				t.Fatalf("round %d: %d puts succeeded", round, wins.Load())
			}
			if got := s.get(t, key); string(got) != winner.Load() {
				t.Fatalf("round %d: %q won, %q is stored", round, winner.Load(), got)
			}
		}
	})
}

// An object is a plain file that its owner can read.
func TestObjectsAreFiles(t *testing.T) {
	dir := t.TempDir()
	s := store{client(start(t, Config{Dir: dir}).URL()), "bucket"}
	if err := s.put(t.Context(), "data/v1/maze/maze_00000000/prompt.txt", []byte("find the way"), false); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "bucket", "data", "v1", "maze", "maze_00000000", "prompt.txt")
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "find the way" {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o400 == 0 {
		t.Errorf("%v, %v", info, err)
	}
}

// A gateway that is killed leaves acknowledged objects whole, and others whole
// or absent.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	body := make([]byte, 300_000)
	_, _ = rand.Read(body)
	stored := map[string]bool{}
	for range 3 {
		server := start(t, Config{Dir: dir})
		s := store{client(server.URL()), "bucket"}
		var mu sync.Mutex
		var group sync.WaitGroup
		for n := range 8 {
			group.Go(func() {
				for i := 0; ; i++ {
					key := fmt.Sprintf("%s/%d/%d", server.address, n, i)
					if s.put(t.Context(), key, body, i%2 == 0) != nil {
						return
					}
					mu.Lock()
					stored[key] = true
					if len(stored)%60 == 59 {
						_ = server.cmd.Process.Kill()
					}
					mu.Unlock()
				}
			})
		}
		group.Wait()
		<-server.Done()
	}
	s := store{client(start(t, Config{Dir: dir}).URL()), "bucket"}
	listed := 0
	for pages := s3.NewListObjectsV2Paginator(s, &s3.ListObjectsV2Input{Bucket: &s.bucket}); pages.HasMorePages(); {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Contents {
			listed++
			if !bytes.Equal(s.get(t, *o.Key), body) {
				t.Errorf("%s is not whole", *o.Key)
			}
			delete(stored, *o.Key)
		}
	}
	if len(stored) > 0 || listed == 0 {
		t.Errorf("of %d objects %d acknowledged ones are gone: %v", listed, len(stored), stored)
	}
}

func TestOnlyLoopback(t *testing.T) {
	if _, err := Start(t.Context(), Config{Dir: t.TempDir(), Meta: t.TempDir(), Address: "0.0.0.0:0", Bucket: "bucket"},
		os.Stderr); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("got %v", err)
	}
}

// What a gateway that was killed had been writing does not stay on the disk.
func TestUnfinishedIsDropped(t *testing.T) {
	dir := t.TempDir()
	temporary := filepath.Join(dir, "bucket", ".sgwtmp")
	part := filepath.Join(temporary, "multipart", "key", "upload", "1")
	for _, file := range []string{filepath.Join(temporary, "hash.1"), part} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("half"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	start(t, Config{Dir: dir})
	if left, err := filepath.Glob(filepath.Join(temporary, "hash*")); err != nil || len(left) > 0 {
		t.Errorf("there is %v, %v", left, err)
	}
	if _, err := os.Stat(part); err != nil {
		t.Errorf("a part of an upload: %v", err)
	}
}
