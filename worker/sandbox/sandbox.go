// Package sandbox runs programs that are not trusted: generators, and what reads their output.
package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// variable turns a process into the sandbox of a generator.
const variable = "VM_DATASET_SANDBOX"

// alive is a pipe that ends with this process, and with it its sandboxes. Where none could be made, as without free
// descriptors, the next one to ask tries again.
var alive struct {
	sync.Mutex
	read, write *os.File
}

func aliveEnd() (read *os.File, err error) {
	alive.Lock()
	defer alive.Unlock()
	if alive.read == nil {
		alive.read, alive.write, err = os.Pipe()
	}
	return alive.read, err
}

// Order is what a sandbox is to run.
type Order struct {
	Argv     []string `json:"argv"`
	Dir      string   `json:"dir"`
	Env      []string `json:"env"`
	Scratch  string   `json:"scratch"`  // the one folder it may write to
	Readable []string `json:"readable"` // what it may read beside the system
	MaxFile  int64    `json:"max_file"` // bytes of one file; 0 is no limit
	// bytes of one process, as it addresses them; 0 is no limit
	MaxMemory int64 `json:"max_memory,omitempty"`
	Apart     bool  `json:"apart"` // the namespaces are the sandbox's own: take network and shared memory away
}

// Start starts the sandbox: apart if that is asked for, or not apart if the system does not let this process do that.
// connect is called with each command that is tried, to give it its input and output. What the sandbox writes at its
// end goes to status; it also ends with this process. When ctx ends, it kills its processes within grace.
func (o Order) Start(ctx context.Context, grace time.Duration, status *os.File,
	connect func(*exec.Cmd) error) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	aliveRead, err := aliveEnd()
	if err != nil {
		return nil, err
	}
	for {
		order, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, self)
		cmd.Env, cmd.Dir = []string{variable + "=" + string(order)}, o.Dir
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		if cmd.WaitDelay = grace; grace <= 0 {
			cmd.WaitDelay = DefaultGrace
		}
		cmd.ExtraFiles = []*os.File{status, aliveRead}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is for this process to handle
		start := (*exec.Cmd).Start
		if o.Apart {
			setApart(cmd.SysProcAttr)
			start = startApart
		}
		if err := connect(cmd); err != nil {
			return nil, err
		}
		if err := start(cmd); err == nil || !o.Apart || ctx.Err() != nil {
			return cmd, err
		}
		o.Apart = false
	}
}

// Status is what a sandbox reports at its end, as JSON.
type Status struct {
	Exit    int    `json:"exit"`
	Signal  string `json:"signal,omitempty"`
	Stopped bool   `json:"stopped,omitempty"` // the sandbox was signalled to end it
	Problem string `json:"problem,omitempty"` // the generator could not be started
	Apart   Apart  `json:"apart"`
}

// Finished reports whether the program ran to its end and succeeded.
func (s Status) Finished() bool { return s.Exit == 0 && !s.Stopped && s.Problem == "" }

// Apart is what a program was kept away from.
type Apart struct {
	Network bool `json:"network"` // there was none but its own loopback
	Shm     bool `json:"shm"`     // /dev/shm could not be written
}

// DefaultGrace is enough to kill some thousand processes on a busy machine, and
// less than the time that a worker keeps back of its invocation.
const DefaultGrace = 5 * time.Second

// Descriptors that a sandbox inherits.
const (
	statusDescriptor = 3
	aliveDescriptor  = 4
)

// A process that Start has started becomes a sandbox here, before the rest of the program is initialised: that takes
// longer than the sandbox needs to be set up. Go initialises packages as soon as what they import is, in the order of
// their names, so this one imports nothing that needs a network.
//
// The sandbox is a process between worker and generator. Orphans of the generator become its children, so that it finds
// and kills every last one, whatever they did to hide; and it ends, with all of them, when the worker does.
func init() {
	if order, ok := os.LookupEnv(variable); ok {
		become(order)
	}
}

func become(order string) {
	runtime.LockOSThread() // some of what is set up belongs to the thread
	keepDescriptors()
	var o Order
	end := Status{Exit: 127}
	if err := json.Unmarshal([]byte(order), &o); err != nil {
		end.Problem = err.Error()
	} else {
		end = o.run()
	}
	code := end.Exit
	if err := json.NewEncoder(os.NewFile(statusDescriptor, "status")).Encode(end); err != nil || code < 0 {
		code = 1
	}
	syscall.Exit(code) // at once: os.Exit under the race detector takes a second
}

// keepDescriptors keeps from the generator every descriptor but the first three: the status, which it could forge, and
// what the worker inherited from whoever started it.
func keepDescriptors() {
	syscall.CloseOnExec(statusDescriptor)
	syscall.CloseOnExec(aliveDescriptor)
	entries, _ := os.ReadDir("/dev/fd")
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n > aliveDescriptor {
			syscall.CloseOnExec(n)
		}
	}
}

func (o Order) run() Status {
	var apart Apart
	if o.Apart {
		apart = takeAway(append(o.Readable, o.Scratch)...)
	}
	err := confine(o.Scratch, o.Readable)
	if err == nil && o.MaxFile > 0 { // the guard checks now and then; a single file the kernel stops at once
		size := uint64(o.MaxFile)
		err = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: size})
	}
	if err != nil {
		return Status{Exit: 126, Problem: fmt.Sprintf("the sandbox could not be set up: %v", err)}
	}
	cmd := exec.Command(o.Argv[0], o.Argv[1:]...)
	cmd.Dir, cmd.Env = o.Dir, o.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = childAttributes()

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		return Status{Exit: 127, Problem: fmt.Sprintf("its interpreter could not be started: %v", err)}
	}
	if o.MaxMemory > 0 {
		limitMemory(cmd.Process.Pid, o.MaxMemory)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	go func() {
		_, _ = io.Copy(io.Discard, os.NewFile(aliveDescriptor, "alive")) // ends when the worker does
		stop <- syscall.SIGTERM
	}()
	stopped := false
	select {
	case <-ended:
	case <-stop:
		stopped = true
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	killOrphans()
	s := Status{Exit: cmd.ProcessState.ExitCode(), Stopped: stopped, Apart: apart}
	if w, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		s.Signal = w.Signal().String()
	}
	return s
}
