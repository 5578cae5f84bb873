package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// The generators of the chaos run: one of the project's own, and one that fails
// in every way, as its seed says, and writes other bytes each time.
const (
	moody = "moody"
	hanoi = "hanoi-task-data-generator"
)

// chaosGenerators is a folder with them and their index, made once.
var chaosGenerators = sync.OnceValues(func() (root string, err error) {
	root = filepath.Join(shared(), "chaos")
	source, err := os.ReadFile("testdata/generate.py")
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "source", moody, "examples", "generate.py")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, source, 0o644)); err != nil {
		return "", err
	}
	ours := filepath.Join("..", "..", "generators")
	for _, name := range []string{"puzzlekit", environment.LocksFolder, hanoi} { // nothing is resolved
		if err := os.CopyFS(filepath.Join(root, "source", name), os.DirFS(filepath.Join(ours, name))); err != nil {
			return "", err
		}
	}
	b := environment.Builder{Root: filepath.Join(root, "source"), Dir: filepath.Join(root, "generators")}
	_, err = b.Build(context.Background())
	return root, err
})

// opsBinary is the program as users have it, built once.
var opsBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(shared(), "ops")
	out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", path, "..").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build ops: %w: %s", err, out)
	}
	return path, nil
})

// installChaos gives a stack's folder the generators. The moody one is its own,
// because it is fixed there.
func installChaos(dir string) error {
	root, err := chaosGenerators()
	if err != nil {
		return err
	}
	index, err := generator.LoadIndex(filepath.Join(root, "generators"))
	if err != nil {
		return err
	}
	g, err := index.Find(moody)
	if err != nil {
		return err
	}
	own := filepath.Join(dir, "own", moody)
	if err := os.CopyFS(own, os.DirFS(g.Dir)); err != nil {
		return err
	}
	g.Dir = own
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(generatorsDir(dir), 0o755),
		os.WriteFile(filepath.Join(generatorsDir(dir), generator.IndexFile), text, 0o644))
}

// fix ends what is wrong with the machine, as the moody generator sees it.
func fix(dir string) error {
	return os.WriteFile(filepath.Join(dir, "own", moody, "fixed"), nil, 0o644)
}

// keeper keeps the stack of one schedule up.
type keeper struct {
	order  elsewhere
	front  *front
	log    func(format string, args ...any)
	mu     sync.Mutex
	cmd    *exec.Cmd
	down   time.Duration // how long it stays down when it ends next
	wanted bool
	asked  int // for how many changes of the order
	served int // how many of them the stack that is up knows
	ended  sync.WaitGroup
}

func (k *keeper) start() {
	k.wanted = true
	k.ended.Go(func() {
		for k.once() {
		}
	})
}

// once starts the stack and returns when it has ended, and whether it shall be
// started again.
func (k *keeper) once() bool {
	k.mu.Lock()
	if !k.wanted {
		k.mu.Unlock()
		return false
	}
	began := time.Now()
	cmd, alive, err := k.order.start()
	k.cmd = cmd
	knows := k.asked
	k.mu.Unlock()
	if err != nil {
		k.log("start the stack: %v", err)
		return false
	}
	defer alive.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	for up := false; !up; {
		told, err := os.Stat(outputsFile(k.order.Dir))
		if pid, _ := PID(k.order.Dir); err == nil && told.ModTime().After(began) && pid == cmd.Process.Pid {
			if o, err := Outputs(k.order.Dir); err == nil {
				k.front.outputs.Store(&o)
				k.mu.Lock()
				k.served = knows
				k.mu.Unlock()
				k.log("the stack is up, process %d", pid)
				break
			}
		}
		select {
		case <-ended:
			up = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	<-ended
	k.log("the stack has ended: %v", cmd.ProcessState)
	k.mu.Lock()
	pause := k.down
	k.down = 0
	k.mu.Unlock()
	time.Sleep(pause)
	return true
}

// signal ends the stack, and lets it come back after a while.
func (k *keeper) signal(s syscall.Signal, pause time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = pause
	if k.cmd != nil && k.cmd.Process != nil {
		_ = k.cmd.Process.Signal(s)
	}
}

// calm restarts the stack in good order, with clocks that are right and so much
// time for an invocation, and waits until it is up.
func (k *keeper) calm(timeout time.Duration) error {
	k.mu.Lock()
	k.order.Behind = nil
	k.order.Timeout, k.order.Visibility = timeout, timeout+2*time.Second
	k.asked++
	k.mu.Unlock()
	k.signal(syscall.SIGTERM, 0)
	for limit := time.Now().Add(3 * time.Minute); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		k.mu.Lock()
		up := k.served == k.asked
		k.mu.Unlock()
		if up {
			return nil
		}
	}
	return errors.New("the stack did not come up again")
}

// stop ends the stack for good.
func (k *keeper) stop() {
	k.mu.Lock()
	k.wanted = false
	k.mu.Unlock()
	k.signal(syscall.SIGTERM, 0)
	k.ended.Wait()
}

// children are the processes of the stack that have a variable in their
// environment, in the order of their starts.
func (k *keeper) children(variable string) []int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cmd == nil || k.cmd.Process == nil {
		return nil
	}
	var pids []int
	eachProcess(func(pid, parent int, environment, _ []byte) {
		if parent == k.cmd.Process.Pid && bytes.Contains(environment, []byte(variable+"=")) {
			pids = append(pids, pid)
		}
	})
	slices.Sort(pids)
	return pids
}

// eachProcess visits the processes of the machine.
func eachProcess(visit func(pid, parent int, environment, command []byte)) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 2 || fields[0] == "Z" {
			continue
		}
		parent, _ := strconv.Atoi(fields[1])
		environment, _ := os.ReadFile("/proc/" + e.Name() + "/environ")
		command, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		visit(pid, parent, environment, command)
	}
}

// processesOf are the processes that know a folder from their environment or
// command line.
func processesOf(dir string) []string {
	var list []string
	eachProcess(func(pid, _ int, environment, command []byte) {
		if bytes.Contains(environment, []byte(dir)) || bytes.Contains(command, []byte(dir)) {
			list = append(list, fmt.Sprintf("%d: %q", pid, command[:min(len(command), 200)]))
		}
	})
	return list
}

// queues are the queues of a stack, seen past the front.
type queues struct{ front *front }

func (q queues) client() (*sqs.Client, string, string, error) {
	o := q.front.outputs.Load()
	if o == nil {
		return nil, "", "", ErrDown
	}
	return sqs.NewFromConfig(AWSConfig(*o)), o.QueueURL, o.DLQURL, nil
}

func (q queues) send(ctx context.Context, body string) error {
	client, url, _, err := q.client()
	if err != nil {
		return err
	}
	_, err = client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body})
	return err
}

// forget receives messages of the task queue and never deletes them.
func (q queues) forget(ctx context.Context, hidden time.Duration) (int, error) {
	client, url, _, err := q.client()
	if err != nil {
		return 0, err
	}
	out, err := client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 2,
		VisibilityTimeout: int32(hidden.Seconds())})
	if err != nil {
		return 0, err
	}
	return len(out.Messages), nil
}

// depth counts the messages of the task queue and of the DLQ.
func (q queues) depth(ctx context.Context) (tasks, dead int, err error) {
	client, url, dlq, err := q.client()
	if err != nil {
		return 0, 0, err
	}
	count := func(url string) int {
		out, e := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url,
			AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll}})
		if e != nil {
			err = errors.Join(err, e)
			return 0
		}
		n := 0
		for _, name := range []string{"ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible",
			"ApproximateNumberOfMessagesDelayed"} {
			some, e := strconv.Atoi(out.Attributes[name])
			err = errors.Join(err, e)
			n += some
		}
		return n
	}
	return count(url), count(dlq), err
}

// clear deletes the messages of the DLQ whose cause is one of those given, and
// returns how many there were of each cause.
func (q queues) drop(ctx context.Context, causes ...string) (map[string]int, error) {
	client, _, dlq, err := q.client()
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	var kept []string
	for {
		out, err := client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &dlq, MaxNumberOfMessages: 10,
			VisibilityTimeout: 60, MessageAttributeNames: []string{"All"}})
		if err != nil {
			return found, err
		}
		if len(out.Messages) == 0 {
			for _, handle := range kept {
				if _, err := client.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &dlq,
					ReceiptHandle: &handle, VisibilityTimeout: 0}); err != nil {
					return found, err
				}
			}
			return found, nil
		}
		for _, m := range out.Messages {
			cause := aws.ToString(m.MessageAttributes["cause"].StringValue)
			if _, err := task.Parse([]byte(aws.ToString(m.Body)), ""); err != nil {
				cause = string(task.InvalidTask) // also if every worker that received it was killed before it said so
			}
			found[cause]++
			if !slices.Contains(causes, cause) {
				kept = append(kept, aws.ToString(m.ReceiptHandle))
				continue
			}
			if _, err := client.DeleteMessage(ctx,
				&sqs.DeleteMessageInput{QueueUrl: &dlq, ReceiptHandle: m.ReceiptHandle}); err != nil {
				return found, err
			}
		}
	}
}

// runOps runs the program against the front, as against a cloud stack, and kills
// it after a while if that is not 0. The exit status is -1 then.
func runOps(ctx context.Context, dir string, f *front, life time.Duration, args ...string) (said string, status int,
	err error) {
	program, err := opsBinary()
	if err != nil {
		return "", 0, err
	}
	root, err := chaosGenerators()
	if err != nil {
		return "", 0, err
	}
	if life > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, life) // exec kills with SIGKILL
		defer cancel()
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, program,
		append([]string{"--outputs", outputsFile(dir), "--local-dir", dir, "--generators-dir", filepath.Join(root, "source"),
			"--yes"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "AWS_ENDPOINT_URL_SQS=" + f.SQS.URL,
		"AWS_ENDPOINT_URL_S3=" + f.S3.URL,
		"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey, "AWS_CONFIG_FILE=/dev/null",
		"AWS_SHARED_CREDENTIALS_FILE=/dev/null",
		"AWS_EC2_METADATA_DISABLED=true"}
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return out.String(), cmd.ProcessState.ExitCode(), err
}

// filesBelow are the files below a folder by their slash-separated names.
func filesBelow(root string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		names = append(names, filepath.ToSlash(name))
		return err
	})
	return names, err
}
