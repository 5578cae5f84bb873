package cloudtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// startForTest needs moto and a registry, and no daemon.
func startForTest(t *testing.T) *Cloud {
	t.Helper()
	endpoint, backend := os.Getenv("MOTO_ENDPOINT"), os.Getenv("REGISTRY")
	if endpoint == "" || backend == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("MOTO_ENDPOINT or REGISTRY is not set in CI")
		}
		t.Skip("MOTO_ENDPOINT or REGISTRY is not set: no moto server or no registry to run against")
	}
	c, err := Start(t.Context(), Options{Endpoint: endpoint, Registry: backend})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Lambda runs images and no indexes, for its own architecture, from the
// account's own repositories.
func TestRunnable(t *testing.T) {
	c := startForTest(t)
	name := fmt.Sprintf("runnable-%d", time.Now().UnixNano())
	push := func(mediaType string, body any) (digest string) {
		t.Helper()
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		digest = fmt.Sprintf("sha256:%x", sha256.Sum256(text))
		if status := c.send(t, http.MethodPut, name+"/manifests/"+digest, mediaType, text,
			true); status != http.StatusCreated {
			t.Fatalf("push %s: status %d", mediaType, status)
		}
		return digest
	}
	if status := c.send(t, http.MethodPost, name+"/blobs/uploads/", "", nil, false); status != http.StatusUnauthorized {
		t.Errorf("a push without a login: status %d", status)
	}
	if status := c.send(t, http.MethodPost, name+"/blobs/uploads/", "", nil, true); status != http.StatusNotFound {
		t.Errorf("a push to a repository that was never made: status %d", status)
	}
	if _, err := c.ecr.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &name}); err != nil {
		t.Fatal(err)
	}
	config := []byte(`{"architecture":"amd64","os":"linux"}`)
	blob := fmt.Sprintf("sha256:%x", sha256.Sum256(config))
	if status := c.upload(t, name, blob, config); status != http.StatusCreated {
		t.Fatalf("upload: status %d", status)
	}
	part := func(mediaType string) map[string]any {
		return map[string]any{"mediaType": mediaType, "digest": blob, "size": len(config)}
	}
	image := push(MediaTypeOCI, map[string]any{"schemaVersion": 2, "mediaType": MediaTypeOCI,
		"config": part("application/vnd.oci.image.config.v1+json"),
		"layers": []any{part("application/vnd.oci.image.layer.v1.tar+gzip")}})
	zstd := push(MediaTypeOCI, map[string]any{"schemaVersion": 2, "mediaType": MediaTypeOCI,
		"config": part("application/vnd.oci.image.config.v1+json"),
		"layers": []any{part("application/vnd.oci.image.layer.v1.tar+zstd")}})
	index := push(mediaTypeOCIIndex, map[string]any{"schemaVersion": 2, "mediaType": mediaTypeOCIIndex, "manifests": []any{
		map[string]any{"mediaType": MediaTypeOCI, "digest": image, "size": 1,
			"platform": map[string]any{"architecture": "amd64", "os": "linux"}},
	}})
	repository := c.registry.address + "/" + name
	for _, test := range []struct{ repository, digest, architecture, says string }{
		{repository, image, "amd64", ""},
		{repository, image, "arm64", "the image is for linux/amd64"},
		{repository, index, "amd64", "is not supported: " + mediaTypeOCIIndex},
		{repository, zstd, "amd64", "is not supported: layer"},
		{repository, "sha256:" + strings.Repeat("0", 64), "amd64", "does not exist"},
		{"elsewhere/" + name, image, "amd64", "in no repository of this account"},
	} {
		err := c.registry.runnable(t.Context(), test.repository, test.digest, test.architecture)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s for %s: %v, want %q", test.digest, test.architecture, err, test.says)
		}
	}
	known, err := c.ecr.BatchGetImage(t.Context(), &ecr.BatchGetImageInput{RepositoryName: &name,
		ImageIds: []ecrtypes.ImageIdentifier{{ImageDigest: &image}}})
	if err != nil || len(known.Images) != 1 {
		t.Errorf("moto does not know of the push: %v, %v", known, err)
	}
}

// send makes a request of the registry as Docker does, and returns its status.
func (c *Cloud) send(t *testing.T, method, path, mediaType string, body []byte, login bool) int {
	t.Helper()
	p := c.answer(t, method, "http://"+c.registry.address+"/v2/"+path, mediaType, body, login)
	p.Body.Close()
	return p.StatusCode
}

func (c *Cloud) answer(t *testing.T, method, url, mediaType string, body []byte, login bool) *http.Response {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if mediaType != "" {
		q.Header.Set("Content-Type", mediaType)
	}
	if login {
		q.SetBasicAuth(registryUser, c.registry.login())
	}
	p, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (c *Cloud) upload(t *testing.T, name, digest string, body []byte) int {
	t.Helper()
	p := c.answer(t, http.MethodPost, "http://"+c.registry.address+"/v2/"+name+"/blobs/uploads/", "", nil, true)
	p.Body.Close()
	where := p.Header.Get("Location")
	if !strings.HasPrefix(where, "http://"+c.registry.address+"/") {
		t.Fatalf("the registry sends Docker past the login: %s", where)
	}
	p = c.answer(t, http.MethodPut, where+"&digest="+digest, "application/octet-stream", body, true)
	p.Body.Close()
	return p.StatusCode
}

// The function has the rights of its role and no others.
func TestGate(t *testing.T) {
	c := startForTest(t)
	unique := fmt.Sprint(time.Now().UnixNano())
	bucket, role := "gate-"+unique, "gate-"+unique
	if _, err := c.s3.CreateBucket(t.Context(),
		&s3.CreateBucketInput{Bucket: &bucket,
			CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(
				c.Region)}}); err != nil {
		t.Fatal(err)
	}
	made, err := c.iam.CreateRole(t.Context(),
		&iam.CreateRoleInput{RoleName: &role,
			AssumeRolePolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[]}`)})
	if err != nil {
		t.Fatal(err)
	}
	document := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:PutObject","s3:GetObject"],"Resource":"arn:aws:s3:::` + bucket + `/data/*"}]}`
	if _, err := c.iam.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: &role, PolicyName: &role,
		PolicyDocument: &document}); err != nil {
		t.Fatal(err)
	}
	g, err := startGate(t.Context(), c, *made.Role.Arn)
	if err != nil {
		t.Fatal(err)
	}
	defer g.server.Close()
	config := c.config
	config.BaseEndpoint = &g.url
	client := s3.NewFromConfig(config, store.ClientOptions)
	put := func(ctx context.Context, key string) error {
		_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader("text")})
		return err
	}
	if err := put(t.Context(), "data/a"); err != nil {
		t.Errorf("what the role allows: %v", err)
	}
	out, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("data/a")})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(out.Body); err != nil || string(text) != "text" {
		t.Errorf("read back: %q, %v", text, err)
	}
	if err := g.denied(); err != nil {
		t.Error(err)
	}
	if err := put(t.Context(), "runs/a"); code(err) != "AccessDenied" {
		t.Errorf("a write elsewhere: %v", err)
	}
	if _, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("data/missing")}); code(
		err) != "AccessDenied" {
		t.Errorf("a missing object, to one who may not list: %v", err)
	}
	if _, err := client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &bucket}); code(err) != "AccessDenied" {
		t.Errorf("a listing: %v", err)
	}
	if err := g.denied(); err == nil || !strings.Contains(err.Error(), "s3:PutObject arn:aws:s3:::"+bucket+"/runs/a") {
		t.Errorf("what was refused: %v", err)
	}
}

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}
