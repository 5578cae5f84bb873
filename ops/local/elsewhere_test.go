package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
)

// stackVariable makes the test binary a local stack, which tests kill.
const stackVariable = "VM_DATASET_TEST_STACK"

// elsewhere says how a stack in a process of its own is to run.
type elsewhere struct {
	Dir                 string
	Workers             int
	Timeout, Visibility time.Duration
	S3, SQS             string          // what workers see instead of the endpoints
	Behind              []time.Duration // the workers' clocks
}

// serveElsewhere is the main function of such a process. SIGTERM ends it in good
// order, and so does the end of the test.
func serveElsewhere(order string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	var e elsewhere
	err := json.Unmarshal([]byte(order), &e)
	if err == nil {
		err = e.serve(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (e elsewhere) serve(ctx context.Context) error {
	c := Config{Dir: e.Dir, Workers: e.Workers, Timeout: e.Timeout, Visibility: e.Visibility}
	c.front = func(o stack.Outputs) stack.Outputs {
		if e.S3 != "" {
			o.S3Endpoint, o.SQSEndpoint = e.S3, e.SQS
		}
		return o
	}
	c.behind = func(worker int) time.Duration {
		if worker < len(e.Behind) {
			return e.Behind[worker]
		}
		return 0
	}
	s, err := Up(ctx, c)
	if err != nil {
		return err
	}
	return errors.Join(s.Wait(ctx), s.Down())
}

// start starts the process. The test's end ends it.
func (e elsewhere) start() (*exec.Cmd, io.Closer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	order, err := json.Marshal(e)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), stackVariable+"="+string(order))
	cmd.Stderr = os.Stderr
	alive, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	return cmd, alive, cmd.Start()
}

// upElsewhere starts a stack in a process of its own, and returns what kills
// that process.
func upElsewhere(t *testing.T, dir string, workers int) (r *rig, kill func()) {
	t.Helper()
	cmd, _, err := elsewhere{Dir: dir, Workers: workers, Timeout: DefaultTimeout, Visibility: DefaultVisibility}.start()
	if err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	eventually(t, "the stack is up", func() bool {
		_, err := Outputs(dir)
		pid, _ := PID(dir)
		return err == nil && pid == cmd.Process.Pid
	})
	o, err := readOutputs(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{Stack: &Stack{outputs: o}, t: t, sqs: sqs.NewFromConfig(AWSConfig(o)), dir: dir}, kill
}
