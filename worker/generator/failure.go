package generator

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Reason is what a Failure or a Problem is about, if that is known: the detail says it in words.
type Reason string

// The reasons.
const (
	MissingModule Reason = "missing_module"
	CommandLine   Reason = "command_line" // the generator refuses the worker's, or its --help does not list it
	Network       Reason = "network"      // the generator wanted it
	ReadOnly      Reason = "read_only"    // a file system, or a lock that needs one: as without /dev/shm
)

// Failure says why a run of a generator failed.
type Failure struct {
	Cause          task.Cause
	Reason         Reason
	Detail         string // one sentence
	ExitCode       int    // -1 if a signal ended it
	Signal         string // that ended it, or ""
	Stdout, Stderr string // their ends, at most 8 KiB each
}

func (f *Failure) Error() string { return string(f.Cause) + ": " + f.Detail }

// explain finds cause and reason of an exit status in the last line of stderr: a
// warning further up that mentions an ImportError, say, did not end the generator.
func (f *Failure) explain(end sandbox.Status) {
	last := LastLine(f.Stderr)
	because := func(cause task.Cause, what string) {
		if f.Cause, f.Detail = cause, what+": "+last; last == "" {
			f.Detail = what + "; its stderr is empty"
		}
	}
	exception, _, _ := strings.Cut(last, ":")
	exception = exception[strings.LastIndex(exception, ".")+1:] // socket.gaierror, cv2.error
	is := func(names ...string) bool { return slices.Contains(names, exception) }
	says := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(last, text) })
	}
	if says("[Errno 30]", "[Errno 38]") {
		f.Reason = ReadOnly
	}
	switch {
	case says("No space left on device", "[Errno 28]"):
		because(task.DiskFull, "the disk was full")
	case says("File too large", "[Errno 27]") || end.Signal == "file size limit exceeded":
		because(task.UnsafeOutput, "a file grew too large")
	case is("MemoryError", "_ArrayMemoryError") || says("Cannot allocate memory"):
		because(task.OutOfMemory, "the generator got no more memory")
	case end.Signal == "killed" || end.Exit == 137:
		because(task.OutOfMemory, "the generator was killed (SIGKILL), as a system short of memory does")
	case end.Signal != "":
		because(task.Crashed, fmt.Sprintf("the generator died of a signal (%s)", end.Signal))
	case is("ModuleNotFoundError", "ImportError"):
		f.Reason = MissingModule
		because(task.Environment, "a module is missing")
	case says("cannot open shared object file"):
		because(task.Environment, "a library is missing on the machine")
	case is("gaierror", "URLError", "ConnectionError", "NewConnectionError", "ConnectError"):
		f.Reason = Network
		because(task.Environment, "the generator wanted the network")
	case end.Exit == 2 && strings.Contains(f.Stderr, "usage:"):
		f.Reason = CommandLine
		because(task.Environment, "the generator does not understand its command line")
	case end.Exit == 126 || end.Exit == 127:
		because(task.Environment, "the interpreter could not be started")
	default:
		because(task.Crashed, fmt.Sprintf("exit status %d", end.Exit))
	}
}

// LastLine is the last line of a text that is not empty, cut after 300 bytes.
func LastLine(text string) string {
	lines := strings.Split(strings.TrimRight(text, " \t\r\n"), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if len(last) > 300 {
		last = toValid(last[:300]) + "..."
	}
	return last
}

func toValid(s string) string { return strings.ToValidUTF8(s, "?") }
