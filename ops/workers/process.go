package workers

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// Variable makes a process a worker.
const Variable = "VM_DATASET_WORKER"

// Main becomes the worker, or the sandbox of a generator, that this process was started
// as, and does not return then. Every program that runs a pool must call it first.
func Main() {
	generator.Main()
	if _, ok := os.LookupEnv(Variable); !ok {
		return
	}
	const inherited = 3 // the local stack's lock
	syscall.CloseOnExec(inherited)
	if err := worker.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
	}
	os.Exit(1)
}

// Command returns this program itself as one of so many workers, which share the CPUs and the memory of the machine.
func Command(workers int, env []string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(env, Variable+"=1", CPUShare(workers),
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE="+strconv.FormatInt(worker.MachineMemory()/int64(workers)>>20, 10))
	return cmd, nil
}

// CPUShare is the variable that gives one of so many workers its share of the CPUs.
func CPUShare(workers int) string {
	return "GOMAXPROCS=" + strconv.Itoa(max(1, runtime.GOMAXPROCS(0)/workers))
}

// Environ returns the variables of a worker that the stack decides.
func Environ(o *stack.Outputs) []string {
	return []string{
		stack.EnvAlive + "=1",
		stack.EnvBucket + "=" + o.BucketName, stack.EnvQueueURL + "=" + o.QueueURL, stack.EnvDLQURL + "=" + o.DLQURL,
		stack.EnvRegion + "=" + o.Region, stack.EnvFunction + "=" + o.FunctionName,
		stack.EnvRequiredFiles + "=" + strings.Join(o.RequiredFiles, ","),
	}
}

// Local returns the variables that lead a worker to the local stack's endpoints, and keep
// it from the user's own settings.
func Local(o *stack.Outputs) []string {
	return []string{
		"AWS_ENDPOINT_URL_SQS=" + o.SQSEndpoint, "AWS_ENDPOINT_URL_S3=" + o.S3Endpoint,
		"AWS_ACCESS_KEY_ID=" + o.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + o.SecretAccessKey,
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
	}
}

// Process is a worker process, or the client of a container of one.
type Process struct {
	Command *exec.Cmd
	Log     *os.File                    // that its output goes to, closed once it has it; may be nil
	Asked   func(after time.Duration)   // called when it asks for work the first time; may be nil
	End     func(ended <-chan struct{}) // tries to end it before it is killed; may be nil

	began time.Time
	asked bool           // it has asked for work
	alive io.WriteCloser // its standard input
	done  chan struct{}
}

func (p *Process) start() (err error) {
	if p.Log != nil {
		defer p.Log.Close()
		p.Command.Stdout, p.Command.Stderr = p.Log, p.Log
	}
	p.Command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this process to handle
	if p.alive, err = p.Command.StdinPipe(); err != nil {
		return err
	}
	p.began, p.done = time.Now(), make(chan struct{})
	if err := p.Command.Start(); err != nil {
		return err
	}
	go func() {
		_ = p.Command.Wait()
		close(p.done)
	}()
	return nil
}

// stop asks the process to hand back what it works on: see stack.EnvAlive.
func (p *Process) stop() { _, _ = p.alive.Write([]byte("stop\n")) }

// end ends the process and returns when it is gone.
func (p *Process) end() {
	_ = p.alive.Close() // this also ends a container that is still being created
	select {
	case <-p.done:
		return
	default:
	}
	if p.End != nil {
		p.End(p.done)
	}
	_ = p.Command.Process.Kill()
	<-p.done
}
