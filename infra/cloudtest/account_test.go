package cloudtest_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optup"

	"github.com/vm-dataset/vm-dataset-pipeline/infra"
	outputs "github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
)

// images are the image that a function, or a version of it, runs, and the one that
// receipts would record.
func (a *account) images(t *testing.T, function string) (runs, recorded string) {
	t.Helper()
	f, err := a.lambda.GetFunction(t.Context(), &lambda.GetFunctionInput{FunctionName: &function})
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(f.Code.ImageUri), f.Configuration.Environment.Variables[outputs.EnvImage]
}

// An update changes a function's configuration first and its image after, and may stop
// between the two. What works on the queue has both of before, or both of after.
func TestEngineUpdateFails(t *testing.T) {
	c := cloud(t)
	a := newAccount(c)
	s := newStack(t, c, unusedName(), infra.Program, map[string]string{"retainData": "false"})
	r, _ := s.up()
	o := checkOutputs(t, r.Outputs)
	works := func(want string) {
		t.Helper()
		m, err := a.lambda.GetEventSourceMapping(t.Context(),
			&lambda.GetEventSourceMappingInput{UUID: &o.EventSourceMappingID})
		if err != nil {
			t.Fatal(err)
		}
		if runs, recorded := a.images(t, *m.FunctionArn); runs != want || recorded != want {
			t.Errorf("the image %s works on the queue, and its receipts name %s; want %s", runs, recorded, want)
		}
	}
	works(o.ImageURI)

	edit(t, filepath.Join("generators", "chess-task-data-generator", "chess_puzzle.py"), "# An edit.")
	c.RefuseImages.Store(true)
	defer c.RefuseImages.Store(false)
	if _, err := s.Up(t.Context()); err == nil || !strings.Contains(err.Error(), "the image cannot be used") {
		t.Errorf("an update whose image is refused: %v", err)
	}
	if runs, recorded := a.images(t, o.FunctionName); runs != o.ImageURI || recorded == o.ImageURI {
		t.Errorf("Lambda has %s and %s: the update did not stop between the two", runs, recorded)
	}
	works(o.ImageURI)

	c.RefuseImages.Store(false)
	r, _ = s.up()
	now, _ := r.Outputs[outputs.OutImageURI].Value.(string)
	if now == o.ImageURI {
		t.Error("the edit has made no new image")
	}
	works(now)
	if _, err := s.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// An account that is too small is refused before there is any resource; one that looks
// new is warned about memory.
func TestEngineAsksAccount(t *testing.T) {
	c := cloud(t)
	a := newAccount(c)
	c.SetQuota(10)
	defer c.SetQuota(1000)
	name := unusedName()
	s := newStack(t, c, name, infra.Program, nil)
	_, err := s.Up(t.Context())
	if want := "maxConcurrency is 900, but the account may have 10 workers at once: pulumi config set size starter"; err == nil ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("%v\nwant %s", err, want)
	}
	if found := a.kinds(t, project+"-"+name); len(found) > 0 {
		t.Errorf("a refusal has made %v", found)
	}
	s.set("maxConcurrency", "10")
	var log bytes.Buffer
	p, err := s.Preview(t.Context(), nil...)
	log.WriteString(p.StdOut)
	if want := "new accounts refuse more than 3008 MB"; err != nil || !strings.Contains(log.String(), want) {
		t.Errorf("%v: %s\nwant %s", err, log.String(), want)
	}
}

// The samples and images of a stack that was destroyed go on in the next one.
func TestEngineAdoptsBucket(t *testing.T) {
	c := cloud(t)
	a := newAccount(c)
	s := newStack(t, c, unusedName(), infra.Program, nil)
	r, _ := s.up()
	o := checkOutputs(t, r.Outputs)
	put(t, a, o.BucketName)
	s.set("bucketName", "another-name")
	if _, err := s.Up(t.Context()); err == nil || !strings.Contains(err.Error(),
		`bucketName is "another-name", but the stack has the bucket "`+o.BucketName+`" and keeps it`) {
		t.Errorf("another name: %v", err)
	}
	other := unusedName()
	if _, err := a.s3.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &other,
		CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: "us-east-2"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveConfig(t.Context(), "bucketName"); err != nil {
		t.Fatal(err)
	}
	s.set("adoptBucket", other)
	if _, err := s.Up(t.Context()); err == nil || !strings.Contains(err.Error(),
		`adoptBucket is "`+other+`", but the stack has the bucket "`+o.BucketName+`" and keeps it`) {
		t.Errorf("another bucket to adopt: %v", err)
	}
	if _, err := s.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}

	var log bytes.Buffer
	next := newStack(t, c, unusedName(), infra.Program, map[string]string{"adoptBucket": o.BucketName})
	if _, err := next.Preview(t.Context()); err != nil { // of a stack that has no state
		t.Errorf("the preview of the adoption: %v", err)
	}
	up, err := next.Up(t.Context(), optup.ProgressStreams(&log))
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	if got := checkOutputs(t, up.Outputs).BucketName; got != o.BucketName {
		t.Errorf("the bucket is %s, not %s", got, o.BucketName)
	}
	_, changes := next.up()
	same(t, "up after the adoption", changes)
	if _, err := next.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{sampleKey} {
		if _, err := a.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &o.BucketName, Key: &key}); err != nil {
			t.Errorf("the sample after both stacks: %v", err)
		}
	}
	if kind := manifestType(t.Context(), t, o.ImageURI); kind == "" {
		t.Errorf("the image that receipts name is gone")
	}
}
