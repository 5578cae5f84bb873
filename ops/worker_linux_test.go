package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/workers"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

var (
	workerSchedules = flag.Int("worker.schedules", 0, "schedules of TestWorkersAnywhere on each queue; CI has 4, make nightly 20")
	workerSeed      = flag.Uint64("worker.seed", 0, "seed of the first schedule; 0 takes the time")
)

// Of a worker's invocation in these tests, and how long the queue hides a message. A hold of a worker
// that was killed ends 10 s after its invocation would have.
const (
	shortTask       = 15 * time.Second
	shortVisibility = 6 * time.Second
)

// site is a deployed stack, to whose queue this machine's workers belong.
type site struct {
	testing.TB
	stack.Outputs
	dir        string
	env        []string // that leads ops to it
	generators string   // folder with their index, as an image has it
	sqs        *sqs.Client
	s3         *s3.Client
	store      *store.Store
}

// localSite is one with our own endpoints, motoSite one in moto. The queue delivers a
// message so often.
func localSite(t testing.TB, receives int, generators ...string) *site {
	c := newCloud(t)
	_, err := c.sqs.CreateQueue(sqsserver.Queue{Name: testTasks, Visibility: shortVisibility, DeadLetter: testDead,
		MaxReceives: receives})
	must(t, err)
	text, err := os.ReadFile(c.outputs)
	must(t, err)
	o, err := stack.Parse(text)
	must(t, err)
	return newSite(t, &site{TB: t, Outputs: o, env: c.env, sqs: c.client, s3: c.s3, store: c.store}, generators)
}

func motoSite(t testing.TB, receives int, generators ...string) *site {
	c := newMotoCloud(t)
	c.setQueue(c.QueueURL, "VisibilityTimeout", strconv.Itoa(int(shortVisibility.Seconds())))
	c.setQueue(c.QueueURL, "RedrivePolicy", fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%d}`, c.DLQARN, receives))
	c.ok(c.lambda.UpdateEventSourceMapping(t.Context(),
		&lambda.UpdateEventSourceMappingInput{UUID: &c.EventSourceMappingID, Enabled: aws.Bool(false)}))
	var env []string
	for name, value := range c.environment() {
		env = append(env, name+"="+value)
	}
	c.Generators, c.Locks = nil, nil
	return newSite(t, &site{TB: t, Outputs: c.Outputs, env: env, sqs: c.sqs, s3: c.s3,
		store: store.New(c.s3, c.BucketName)}, generators)
}

func newSite(t testing.TB, s *site, names []string) *site {
	s.dir = t.TempDir()
	source, err := os.ReadFile(filepath.Join("local", "testdata", "generate.py"))
	must(t, err)
	for _, name := range names {
		makeGenerators(t, filepath.Join(s.dir, "generators"), name)
		must(t, os.WriteFile(filepath.Join(s.dir, "generators", name, "examples", "generate.py"), source, 0o644))
	}
	s.generators = filepath.Join(s.dir, "prepared")
	b := environment.Builder{Root: filepath.Join(s.dir, "generators"), Dir: s.generators, Python: "/usr/bin/python3"}
	_, err = b.Build(t.Context())
	must(t, err)
	text, err := json.Marshal(s.Outputs)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(s.dir, "outputs.json"), text, 0o644))
	return s
}

// command is ops, as its user runs it for the stack.
func (s *site) command(args ...string) *exec.Cmd {
	cmd := exec.Command("ops", append([]string{"--outputs", filepath.Join(s.dir, "outputs.json"), "--generators-dir",
		filepath.Join(s.dir, "generators"), "--local-dir", filepath.Join(s.dir, "local")}, args...)...)
	cmd.Dir = s.dir
	tmp := filepath.Join(s.dir, "tmp")
	must(s, os.MkdirAll(tmp, 0o755))
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "TMPDIR=" + tmp, "GORACE=atexit_sleep_ms=0",
		stack.EnvGenerators + "=" + s.generators, stack.EnvRetryDelays + "=0.01"}, s.env...)
	return cmd
}

// ops runs a command to its end, which must be status 0.
func (s *site) ops(args ...string) string {
	s.Helper()
	out, err := s.command(args...).CombinedOutput()
	if err != nil {
		s.Fatalf("ops %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// submit sends a run of the generators, in chunks of two samples.
func (s *site) submit(id string, samples, batch int, generators ...string) {
	s.Helper()
	args := []string{"submit", "--run", id, "--samples", strconv.Itoa(samples), "--chunk", "2", "--batch",
		strconv.Itoa(batch), "--seed", "3", "--yes"}
	for _, name := range generators {
		args = append(args, "--generator", name)
	}
	s.ops(args...)
}

// depth counts the messages of the task queue: those that wait, and all.
func (s *site) depth() (waiting, all int) {
	out, err := s.sqs.GetQueueAttributes(s.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &s.QueueURL,
		AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll}})
	must(s, err)
	for name, value := range out.Attributes {
		if n, err := strconv.Atoi(value); err == nil && strings.HasPrefix(name, "ApproximateNumberOfMessages") {
			if all += n; name == "ApproximateNumberOfMessages" {
				waiting = n
			}
		}
	}
	return waiting, all
}

// dead takes the messages out of the DLQ and returns their attributes.
func (s *site) dead() (list []map[string]string) {
	for {
		out, err := s.sqs.ReceiveMessage(s.Context(), &sqs.ReceiveMessageInput{QueueUrl: &s.DLQURL, MaxNumberOfMessages: 10,
			MessageAttributeNames: []string{"All"}})
		must(s, err)
		if len(out.Messages) == 0 {
			return list
		}
		for _, m := range out.Messages {
			attributes := map[string]string{"body": *m.Body}
			for name, a := range m.MessageAttributes {
				attributes[name] = aws.ToString(a.StringValue)
			}
			list = append(list, attributes)
			_, err := s.sqs.DeleteMessage(s.Context(), &sqs.DeleteMessageInput{QueueUrl: &s.DLQURL, ReceiptHandle: m.ReceiptHandle})
			must(s, err)
		}
	}
}

// drained waits until the task queue is empty.
func (s *site) drained(limit time.Duration) {
	s.Helper()
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		_, tasks := s.depth()
		if tasks == 0 {
			return
		}
		if time.Since(began) > limit {
			s.Fatalf("%d tasks are in the queue after %s", tasks, limit)
		}
	}
}

// data is every object of samples, by its key.
func (s *site) data() map[string][]byte {
	all := map[string][]byte{}
	for o, err := range s.store.List(s.Context(), task.DefaultDataset.Prefix(task.DataKind), "") {
		must(s, err)
		out, err := s.s3.GetObject(s.Context(), &s3.GetObjectInput{Bucket: &s.BucketName, Key: &o.Key})
		must(s, err)
		all[o.Key], err = io.ReadAll(out.Body)
		must(s, err)
	}
	return all
}

// node is ops worker on one machine, which is started again whenever it ends.
type node struct {
	site  *site
	mu    sync.Mutex
	cmd   *exec.Cmd
	ended sync.WaitGroup
	said  bytes.Buffer
}

// startNode starts a node, which ends with ctx.
func (s *site) startNode(ctx context.Context) *node {
	n := &node{site: s}
	n.ended.Go(func() {
		for ctx.Err() == nil {
			cmd := s.command("worker", "--workers", "1", "--timeout", shortTask.String())
			cmd.Stderr = &n.said
			n.mu.Lock()
			err := cmd.Start()
			n.cmd = cmd
			n.mu.Unlock()
			if err != nil {
				s.Error(err)
				return
			}
			if err := cmd.Wait(); err != nil && !strings.Contains(err.Error(), "signal: ") { // at its start a SIGTERM kills, too
				s.Errorf("ops worker: %v: %s", err, n.said.String())
				return
			}
		}
	})
	context.AfterFunc(ctx, func() { n.signal(syscall.SIGTERM) })
	return n
}

func (n *node) signal(sig syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		_ = n.cmd.Process.Signal(sig) // an error if it has ended
	}
}

// killWorker kills the worker process of a node.
func (n *node) killWorker() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return
	}
	list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", n.cmd.Process.Pid))
	for _, field := range strings.Fields(string(list)) {
		if env, _ := os.ReadFile("/proc/" + field + "/environ"); bytes.Contains(env, []byte(workers.Variable+"=")) {
			pid, _ := strconv.Atoi(field)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// TestWorkersAnywhere runs ops worker on three machines, with the function beside them in every other
// schedule, while they are killed and terminated at random: in the end both queues are empty and the
// bytes are those of an undisturbed run.
func TestWorkersAnywhere(t *testing.T) {
	if *workerSchedules == 0 {
		t.Skip("-worker.schedules says how many there are")
	}
	const samples, nodes, length = 12, 3, 4 * time.Second
	generators := []string{"good", "slow"}
	var want map[string][]byte
	t.Run("undisturbed", func(t *testing.T) {
		s := localSite(t, 3, generators...)
		s.submit("r", samples, 4, generators...)
		s.ops("worker", "--workers", "2", "--idle", "500ms")
		s.ops("verify", "--run", "r")
		want = s.data()
		if len(want) != len(generators)*samples*5 {
			t.Fatalf("%d objects", len(want))
		}
	})
	first := *workerSeed
	if first == 0 {
		first = uint64(time.Now().UnixMilli())
	}
	schedule := func(t *testing.T, seed uint64, where func(testing.TB, int, ...string) *site) {
		t.Parallel()
		random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // repeatable
		kills := random.IntN(3)
		s := where(t, 3+3*kills, generators...) // of one kill: the poll, the task, and the wait for its hold
		s.submit("r", samples, 4, generators...)
		ctx, stop := context.WithCancel(t.Context())
		var list []*node
		for range nodes {
			list = append(list, s.startNode(ctx))
		}
		beside := seed%2 == 0
		var function sync.WaitGroup
		if beside {
			function.Go(func() { s.function(ctx) })
		}
		log := []string{fmt.Sprintf("seed %d, function %v", seed, beside)}
		began := time.Now()
		at := func() time.Duration { return 500*time.Millisecond + time.Duration(random.Int64N(int64(length))) }
		moments := []time.Duration{}
		for range 3 + random.IntN(4) {
			moments = append(moments, at())
		}
		slices.Sort(moments)
		for i, moment := range moments {
			time.Sleep(time.Until(began.Add(moment)))
			n := random.IntN(nodes)
			what := "terminate"
			switch {
			case i >= kills:
				list[n].signal(syscall.SIGTERM)
			case random.IntN(2) == 0:
				what = "kill worker"
				list[n].killWorker()
			default:
				what = "kill"
				list[n].signal(syscall.SIGKILL)
			}
			log = append(log, fmt.Sprintf("%.1f s: %s node %d", moment.Seconds(), what, n))
		}
		s.drained(3 * time.Minute)
		stop()
		for _, n := range list {
			n.ended.Wait()
		}
		function.Wait()
		if dead := s.dead(); len(dead) > 0 {
			t.Errorf("in the DLQ: %v", dead)
		}
		s.ops("verify", "--run", "r")
		if got := s.data(); !maps.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%d objects, some other than the %d of the undisturbed run", len(got), len(want))
		}
		if t.Failed() {
			t.Logf("go test ./ops -run TestWorkersAnywhere -worker.seed %d\n%s", seed, strings.Join(log, "\n"))
			for _, n := range list {
				t.Logf("%s", n.said.String())
			}
		}
	}
	for i := range *workerSchedules {
		seed := first + uint64(i)
		t.Run(fmt.Sprintf("local/seed=%d", seed), func(t *testing.T) { schedule(t, seed, localSite) })
		if os.Getenv("MOTO_ENDPOINT") != "" {
			t.Run(fmt.Sprintf("moto/seed=%d", seed), func(t *testing.T) { schedule(t, seed, motoSite) })
		}
	}
}

// function is the stack's Lambda function until ctx ends.
func (s *site) function(ctx context.Context) {
	f, err := newFunction(s.generators, &s.Outputs, s.store, s.sqs)
	if err != nil {
		s.Error(err)
		return
	}
	for ctx.Err() == nil {
		out, err := s.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &s.QueueURL, WaitTimeSeconds: 1,
			VisibilityTimeout:           int32(shortTask.Seconds()) + 2,
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}, MessageAttributeNames: []string{"All"}})
		if err == nil && len(out.Messages) > 0 {
			_, err = f.invoke(context.WithoutCancel(ctx), &out.Messages[0], shortTask)
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			s.Error(err)
		}
	}
}
