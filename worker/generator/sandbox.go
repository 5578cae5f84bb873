package generator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// launchVariable turns a process into the sandbox of a generator.
const launchVariable = "VM_DATASET_SANDBOX"

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

type launch struct {
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

// start starts the sandbox: apart if that is asked for, or not apart if the system does not let this process do that.
// connect is called with each command that is tried, to give it its input and output. What the sandbox writes at its
// end goes to status; it also ends with this process. When ctx ends, it kills its processes within grace.
func (l launch) start(ctx context.Context, grace time.Duration, status *os.File,
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
		order, err := json.Marshal(l)
		if err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, self)
		// The collector of garbage rests until Main: what the packages of a program allocate at its start would make it
		// run several times, for a third of the start's CPU.
		cmd.Env, cmd.Dir = []string{launchVariable + "=" + string(order), "GOGC=off"}, l.Dir
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		if cmd.WaitDelay = grace; grace <= 0 {
			cmd.WaitDelay = defaultGrace
		}
		cmd.ExtraFiles = []*os.File{status, aliveRead}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is for this process to handle
		start := (*exec.Cmd).Start
		if l.Apart {
			setApart(cmd.SysProcAttr)
			start = startApart
		}
		if err := connect(cmd); err != nil {
			return nil, err
		}
		if err := start(cmd); err == nil || !l.Apart || ctx.Err() != nil {
			return cmd, err
		}
		l.Apart = false
	}
}

// status is what a sandbox reports at its end.
type status struct {
	Exit    int    `json:"exit"`
	Signal  string `json:"signal,omitempty"`
	Stopped bool   `json:"stopped,omitempty"` // the sandbox was signalled to end it
	Problem string `json:"problem,omitempty"` // the generator could not be started
	Apart   Apart  `json:"apart"`
}

func (s status) finished() bool { return s.Exit == 0 && !s.Stopped && s.Problem == "" }

// Descriptors that a sandbox inherits.
const (
	statusDescriptor = 3
	aliveDescriptor  = 4
)

// Main turns this process into the sandbox of a generator if Run has started it as one, and does not return then. Every
// program that calls Run must call it first.
//
// The sandbox is a process between worker and generator. Orphans of the generator become its children, so that it finds
// and kills every last one, whatever they did to hide; and it ends, with all of them, when the worker does.
func Main() {
	order, ok := os.LookupEnv(launchVariable)
	if !ok {
		return
	}
	debug.SetGCPercent(100)
	runtime.LockOSThread() // some of what is set up belongs to the thread
	keepDescriptors()
	var l launch
	end := status{Exit: 127}
	if err := json.Unmarshal([]byte(order), &l); err != nil {
		end.Problem = err.Error()
	} else {
		end = l.run()
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

func (l launch) run() status {
	var apart Apart
	if l.Apart {
		apart = takeAway(append(l.Readable, l.Scratch)...)
	}
	err := confine(l.Scratch, l.Readable)
	if err == nil && l.MaxFile > 0 { // the guard checks now and then; a single file the kernel stops at once
		size := uint64(l.MaxFile)
		err = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: size})
	}
	if err != nil {
		return status{Exit: 126, Problem: fmt.Sprintf("the sandbox could not be set up: %v", err)}
	}
	cmd := exec.Command(l.Argv[0], l.Argv[1:]...)
	cmd.Dir, cmd.Env = l.Dir, l.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = childAttributes()

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		return status{Exit: 127, Problem: fmt.Sprintf("its interpreter could not be started: %v", err)}
	}
	if l.MaxMemory > 0 {
		limitMemory(cmd.Process.Pid, l.MaxMemory)
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
	s := status{Exit: cmd.ProcessState.ExitCode(), Stopped: stopped, Apart: apart}
	if w, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		s.Signal = w.Signal().String()
	}
	return s
}

// KeepsNetwork reports whether this system lets a sandbox keep generators from the network: that
// needs root's rights or user namespaces. It starts a process to find out.
func KeepsNetwork(ctx context.Context) (bool, error) {
	dir, err := os.MkdirTemp("", "vm-dataset-network-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	source, scratch := filepath.Join(dir, "source", "true"), filepath.Join(dir, "scratch")
	if err := errors.Join(os.MkdirAll(source, 0o700), os.Mkdir(scratch, 0o700)); err != nil {
		return false, err
	}
	program, err := exec.LookPath("true") // not every system has it in /bin
	if err != nil {
		return false, err
	}
	g := &Generator{Name: "true", Dir: source, Entry: "-", Python: program, Flags: contractFlags}
	r, err := Run(ctx, Request{Generator: g, Samples: 1, Scratch: scratch, Apart: true})
	return r.Apart.Network, err
}

// Readable are the folders a generator must read beside the system's own: its environment, the interpreter that was
// made from, itself and what stands beside it, because generators may share code.
func Readable(g *Generator) []string {
	dirs := append(Installed(g.Python), filepath.Dir(g.Dir))
	if resolved, err := filepath.EvalSymlinks(g.Dir); err == nil {
		dirs = append(dirs, resolved)
	}
	return dirs
}

// Program is a program that reads what generators made, which is not trusted: it runs in a sandbox as they do.
type Program struct {
	Argv      []string // the first one is a path
	Env       []string // its whole environment
	Scratch   string   // its working folder, and the one that it may write to; absolute
	Readable  []string // what it may read beside the system and its executable
	MaxFile   int64    // bytes of one file
	MaxMemory int64    // bytes of one process
}

// Start starts the program without a network, if the system lets this process take that away. connect is called with
// the command to give it its input and output, again if the first try fails. When ctx ends, all its processes are
// killed. Every program that calls Start must call Main first.
func (p Program) Start(ctx context.Context, connect func(*exec.Cmd) error) (*exec.Cmd, error) {
	ignored, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	defer ignored.Close()
	readable := append([]string{filepath.Dir(p.Argv[0])}, p.Readable...)
	if resolved, err := filepath.EvalSymlinks(p.Argv[0]); err == nil {
		readable = append(readable, filepath.Dir(resolved))
	}
	return launch{Argv: p.Argv, Dir: p.Scratch, Env: p.Env, Scratch: p.Scratch, Readable: readable, MaxFile: p.MaxFile,
		MaxMemory: p.MaxMemory, Apart: true}.start(ctx, defaultGrace, ignored, connect)
}

// Installed are the folders in which a Python and its packages are: its environment, and the one this was made from.
func Installed(python string) []string {
	dirs := []string{filepath.Dir(filepath.Dir(python))}
	if resolved, err := filepath.EvalSymlinks(python); err == nil {
		dirs = append(dirs, filepath.Dir(filepath.Dir(resolved)))
	}
	return dirs
}

// ReadLeft reads a file below a folder in which a generator, or a program of its environment, could write, at most so
// many bytes of it. What was put in its place may be a pipe, or a link out of there: that is an error.
func ReadLeft(dir, name string, most int64) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no plain file", name))
	}
	return io.ReadAll(io.LimitReader(f, most))
}
