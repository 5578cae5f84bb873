package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestMain(m *testing.M) {
	s3server.Main()
	code := m.Run()
	if dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// dir is for what the benchmarks make once.
var dir string

// rig is what the benchmarks measure: the worker's executable, built as for the
// image, and our own generators in two copies, so that what a user's Python leaves
// beside one (byte code) does not help the worker.
type rig struct {
	bootstrap string
	index     *generator.Index // of the worker's copy
	indexDir  string
	copied    string // the other copy, for runs by hand
	bucket    *s3server.Server
}

var theRig = sync.OnceValues(func() (*rig, error) {
	var err error
	if dir, err = os.MkdirTemp("", "vm-dataset-bench-"); err != nil {
		return nil, err
	}
	r := &rig{bootstrap: filepath.Join(dir, "bootstrap"), indexDir: filepath.Join(dir, "index"),
		copied: filepath.Join(dir, "by-hand")}
	if out, err := exec.Command("go", "build", "-o", r.bootstrap, ".").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build bootstrap: %w: %s", err, out)
	}
	large, err := os.ReadFile(filepath.Join("testdata", "large.py"))
	if err != nil {
		return nil, err
	}
	mine := filepath.Join(dir, "worker")
	for _, to := range []string{mine, r.copied} {
		if err := copyGenerators(to, large); err != nil {
			return nil, err
		}
	}
	b := environment.Builder{Root: mine, Dir: r.indexDir}
	if r.index, err = b.Build(context.Background()); err != nil {
		return nil, err
	}
	r.bucket, err = s3server.Start(context.Background(), s3server.Config{Dir: filepath.Join(dir, "objects"),
		Meta:    filepath.Join(dir, "metadata"),
		Address: "127.0.0.1:0", Bucket: "bucket", Region: "us-east-2", AccessKey: "a", SecretKey: "b"}, os.Stderr)
	return r, err
})

const largeGenerator = "large-task-data-generator"

// copyGenerators copies our own generators, and makes the one with large samples.
func copyGenerators(to string, large []byte) error {
	from := filepath.Join("..", "..", "generators")
	for _, name := range append([]string{"puzzlekit"}, own...) {
		if err := os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(from, name))); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(to, name, "__pycache__")); err != nil { // of who has run it here
			return err
		}
	}
	program := filepath.Join(to, largeGenerator, generator.DefaultEntry)
	requirements, err := os.ReadFile(filepath.Join(from, own[0], "requirements.txt"))
	return errors.Join(err, os.MkdirAll(filepath.Dir(program), 0o755), os.WriteFile(program, large, 0o644),
		os.WriteFile(filepath.Join(to, largeGenerator, "requirements.txt"), requirements, 0o644))
}

// bench returns the rig, with a new worker at its first request for work.
func bench(b *testing.B) (*rig, *process) {
	b.Helper()
	r, err := theRig()
	if err != nil {
		b.Fatal(err)
	}
	return r, r.start(b)
}

// process is a worker process and the Lambda runtime API that it asks for work.
type process struct {
	b       *testing.B
	cmd     *exec.Cmd
	asked   chan time.Time // it wants the next invocation
	payload chan []byte
	answer  chan []byte
	log     bytes.Buffer
}

// start starts a worker. It ends with the benchmark.
func (r *rig) start(b *testing.B) *process {
	b.Helper()
	p := &process{b: b, asked: make(chan time.Time), payload: make(chan []byte), answer: make(chan []byte)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", func(w http.ResponseWriter, q *http.Request) {
		select {
		case p.asked <- time.Now():
		case <-q.Context().Done():
			return
		}
		select {
		case payload := <-p.payload:
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", strconv.FormatInt(time.Now().UnixNano(), 36))
			w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(15*time.Minute).UnixMilli(), 10))
			w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-2:000000000000:function:worker")
			_, _ = w.Write(payload)
		case <-q.Context().Done():
		}
	})
	answer := func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.WriteHeader(http.StatusAccepted)
		select {
		case p.answer <- body:
		case <-time.After(time.Minute):
		}
	}
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", answer)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", answer)
	server := httptest.NewServer(mux)
	b.Cleanup(server.Close)
	p.cmd = exec.Command(r.bootstrap)
	p.cmd.Env = []string{
		stack.EnvBucket + "=bucket", stack.EnvGenerators + "=" + r.indexDir, stack.EnvRegion + "=us-east-2",
		"AWS_ENDPOINT_URL_S3=" + r.bucket.URL(),
		"AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b", "AWS_CONFIG_FILE=/dev/null",
		"AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_LAMBDA_RUNTIME_API=" + strings.TrimPrefix(server.URL, "http://"), "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=10240",
		"PATH=" + os.Getenv("PATH"), "HOME=" + b.TempDir(), "TMPDIR=" + b.TempDir(),
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.stop)
	return p
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill() // an error if it has ended before
	_ = p.cmd.Wait()
}

// taken is what a worker took for a task.
type taken struct {
	wall          time.Duration
	own, children time.Duration // CPU
	peak          int64         // bytes, of the worker alone, since its start
	summary       worker.Summary
}

func (t taken) cpu() time.Duration { return t.own + t.children }

// do gives the worker a task, and returns when it has answered: every receipt is
// written, and every process it has started is gone.
func (p *process) do(t task.Task) taken {
	p.b.Helper()
	<-p.asked
	before := p.usage()
	began := time.Now()
	p.payload <- []byte(t.Body())
	body := <-p.answer
	wall := time.Since(began)
	after := p.usage()
	x := taken{wall: wall, own: after.own - before.own, children: after.children - before.children, peak: after.peak}
	if err := json.Unmarshal(body, &x.summary); err != nil || x.summary.Samples != t.NumSamples {
		p.b.Fatalf("%s: %s", t.Body(), body)
	}
	return x
}

// usage reads what the worker and the children it has waited for have taken. The
// kernel counts it in hundredths of a second.
func (p *process) usage() taken {
	p.b.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid))
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		p.b.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	ticks := func(first int) time.Duration { // fields as proc(5) counts them; the first here is the third there
		var sum int64
		for _, text := range fields[first-3 : first-1] {
			n, _ := strconv.ParseInt(text, 10, 64)
			sum += n
		}
		return time.Duration(sum) * 10 * time.Millisecond
	}
	x := taken{own: ticks(14), children: ticks(16)}
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		p.b.Fatal(err)
	}
	if _, rest, found := strings.Cut(string(status), "VmHWM:"); found {
		kilobytes, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		x.peak = kilobytes << 10
	}
	return x
}
