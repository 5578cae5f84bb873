package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// rig is a local stack with generators that go wrong as their names say.
type rig struct {
	*Stack
	store *store.Store // of the dataset that is looked at
	t     *testing.T
	sqs   *sqs.Client
	dir   string
	seen  *sync.Map // dead messages that were received, by first message id
}

var behaviours = []string{"good", "restless", "slow", "slower", "crash", "crash-odd", "no-module", "usage", "memory",
	"killed", "hang", "hang-late", "daemon",
	"noisy", "peek", "shared-tmp", "outside", "full", "few", "many", "none", "link", "no-video", "truncated",
	"bad-picture"}

// prepared is an index of the generators above, made once.
var prepared = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(shared(), "behaviours")
	source, err := os.ReadFile("testdata/generate.py")
	if err != nil {
		return "", err
	}
	for _, name := range behaviours {
		path := filepath.Join(dir, "source", name, "examples", "generate.py")
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, source, 0o644)); err != nil {
			return "", err
		}
	}
	b := environment.Builder{Root: filepath.Join(dir, "source"), Dir: filepath.Join(dir, "generators")}
	_, err = b.Build(context.Background())
	return filepath.Join(b.Dir, generator.IndexFile), err
})

// folder makes a stack's folder with the prepared generators.
func folder(t *testing.T) string {
	t.Helper()
	return folderWith(t, prepared)
}

func folderWith(t *testing.T, prepared func() (string, error)) string {
	t.Helper()
	index, err := prepared()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(generatorsDir(dir), 0o755),
		os.WriteFile(filepath.Join(generatorsDir(dir), generator.IndexFile), text, 0o644)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func up(t *testing.T, dir string, c Config) *rig {
	t.Helper()
	c.Dir = dir
	if c.Workers == 0 {
		c.Workers = 2
	}
	if c.Timeout == 0 {
		c.Timeout, c.Visibility = DefaultTimeout, DefaultVisibility
	}
	c.Say = func(m string) { t.Log(m) }
	s, err := Up(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Down(); err != nil {
			t.Error(err)
		}
		if t.Failed() && testing.Verbose() {
			logs, _ := filepath.Glob(filepath.Join(dir, "logs", "*"))
			for _, log := range logs {
				text, _ := os.ReadFile(log)
				t.Logf("%s:\n%s", filepath.Base(log), text[max(0, len(text)-4000):])
			}
		}
	})
	return &rig{Stack: s, store: s.store, t: t, sqs: sqs.NewFromConfig(AWSConfig(s.Outputs())), dir: dir,
		seen: &sync.Map{}}
}

// send sends a message body and returns its id.
func (r *rig) send(body string) string {
	r.t.Helper()
	url := r.Outputs().QueueURL
	out, err := r.sqs.SendMessage(r.t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body})
	if err != nil {
		r.t.Fatal(err)
	}
	return aws.ToString(out.MessageId)
}

func (r *rig) sendTask(t task.Task) string {
	r.t.Helper()
	if t.ChunkSize == 0 {
		t.ChunkSize = 5
	}
	if err := t.Validate(); err != nil {
		r.t.Fatal(err)
	}
	return r.send(t.Body())
}

// eventually polls until a condition holds, the less often the longer it has waited:
// some conditions read all that was made.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	began := time.Now()
	for !holds() {
		waited := time.Since(began)
		if waited > 5*time.Minute {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(min(max(waited/10, 5*time.Millisecond), time.Second))
	}
}

func (r *rig) idle() {
	r.t.Helper()
	eventually(r.t, "the queue is empty", r.Idle)
}

// dead is the DLQ's message of a first message id, or nil. What is received
// stays with the rig.
func (r *rig) dead(id string) map[string]string {
	r.t.Helper()
	url := r.Outputs().DLQURL
	out, err := r.sqs.ReceiveMessage(r.t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 10,
		VisibilityTimeout: 43200, MessageAttributeNames: []string{"All"}})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, m := range out.Messages {
		found := map[string]string{"body": aws.ToString(m.Body)}
		for name, a := range m.MessageAttributes {
			found[name] = aws.ToString(a.StringValue)
		}
		r.seen.Store(found[task.AttributeMessageID], found)
	}
	found, _ := r.seen.Load(id)
	d, _ := found.(map[string]string)
	return d
}

// failures are the failure reports of a generator.
func (r *rig) failures(name string) []store.Failure {
	r.t.Helper()
	var list []store.Failure
	for o, err := range r.store.List(r.t.Context(), r.store.Dataset().FailuresPrefix(name), "") {
		if err != nil {
			r.t.Fatal(err)
		}
		f, err := r.store.Failure(r.t.Context(), o.Key)
		if err != nil {
			r.t.Fatal(err)
		}
		list = append(list, f)
	}
	return list
}

// in is the rig with its eyes on another dataset.
func (r *rig) in(d task.Dataset) *rig {
	other := *r
	other.store = r.store.In(d)
	return &other
}

func (r *rig) receipts(name string) []store.Receipt {
	r.t.Helper()
	return s3test.Receipts(r.t, r.store, name)
}

// holds checks that just the samples of a range are committed, that each object
// is what its receipt says, and that no other object is there.
func (r *rig) holds(name string, whole task.Range) {
	r.t.Helper()
	indices := map[int]bool{}
	objects := map[string]string{} // key: hash
	for _, receipt := range r.receipts(name) {
		for _, s := range receipt.Samples {
			if indices[s.Index] {
				r.t.Errorf("%s: index %d is committed twice", name, s.Index)
			}
			indices[s.Index] = true
			for _, f := range s.Files {
				if receipt.Shard == nil {
					objects[r.store.Dataset().FileKey(name, s.ID, f.Name)] = f.SHA256
				}
			}
		}
		if receipt.Shard != nil {
			objects[receipt.Shard.Key] = receipt.Shard.SHA256
		}
	}
	for i := whole.Start; i < whole.End; i++ {
		if !indices[i] {
			r.t.Errorf("%s: index %d is missing", name, i)
		}
		delete(indices, i)
	}
	if len(indices) > 0 {
		r.t.Errorf("%s: %d indices too many", name, len(indices))
	}
	stored := r.stored(name)
	for key, hash := range objects {
		if got := sum(stored[key]); got != hash {
			r.t.Errorf("%s: the hash is %.8s, the receipt says %.8s", key, got, hash)
		}
		delete(stored, key)
	}
	for key := range stored {
		r.t.Errorf("%s is there without a receipt", key)
	}
}

// stored are the data objects of a generator, read from the plain files.
func (r *rig) stored(name string) map[string][]byte {
	r.t.Helper()
	root := filepath.Join(objectsDir(r.dir), Bucket)
	all := map[string][]byte{}
	err := filepath.WalkDir(filepath.Join(root, filepath.FromSlash(r.store.Dataset().Prefix(task.DataKind)), name),
		func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || e.IsDir() {
				return err
			}
			key, _ := filepath.Rel(root, path)
			data, err := os.ReadFile(path)
			all[filepath.ToSlash(key)] = data
			return err
		})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// leftovers are what stands in the workers' temporary folders.
func (r *rig) leftovers() []string {
	var list []string
	_ = filepath.WalkDir(filepath.Join(r.dir, "scratch"), func(path string, e fs.DirEntry, err error) error {
		if name, _ := filepath.Rel(filepath.Join(r.dir, "scratch"), path); err == nil &&
			strings.Count(name, string(filepath.Separator)) > 1 {
			list = append(list, name)
		}
		return nil
	})
	return list
}
