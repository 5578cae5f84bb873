package generator

import (
	"fmt"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Failure says why a run of a generator failed.
type Failure struct {
	Cause          task.Cause
	Detail         string // one sentence
	ExitCode       int    // -1 if a signal ended it
	Signal         string // that ended it, or ""
	Stdout, Stderr string // their ends, at most 8 KiB each
}

func (f *Failure) Error() string { return string(f.Cause) + ": " + f.Detail }

// causeOf finds the cause of an exit status in the last thing that was said: a
// warning further up that mentions an ImportError, say, was survived.
func causeOf(end status, stderr string) (task.Cause, string) {
	last := lastLine(stderr)
	said := "it said nothing"
	if last != "" {
		said = "its last words: " + last
	}
	exception, _, _ := strings.Cut(last, ":")
	if i := strings.LastIndex(exception, "."); i >= 0 { // socket.gaierror, cv2.error
		exception = exception[i+1:]
	}
	switch {
	case strings.Contains(last, "No space left on device") || strings.Contains(last, "[Errno 28]"):
		return task.DiskFull, "the generator found the disk full; " + said
	case exception == "MemoryError" || exception == "_ArrayMemoryError" || strings.Contains(last, "Cannot allocate memory"):
		return task.OutOfMemory, "the generator got no more memory; " + said
	case end.Signal == "killed" || end.Exit == 137:
		return task.OutOfMemory, "the generator was killed (SIGKILL), which is how a system short of memory ends a process; " + said
	case end.Signal != "":
		return task.Crashed, fmt.Sprintf("the generator died of a signal (%s); %s", end.Signal, said)
	case exception == "ModuleNotFoundError" || exception == "ImportError":
		return task.Environment, "the generator's environment lacks a module; " + said
	case strings.Contains(last, "cannot open shared object file"):
		return task.Environment, "the machine lacks a library; " + said
	case exception == "gaierror" || exception == "URLError" || exception == "ConnectionError" || exception == "NewConnectionError" || exception == "ConnectError":
		return task.Environment, "the generator wanted the network; " + said
	case end.Exit == 2 && strings.Contains(stderr, "usage:"):
		return task.Environment, "the generator does not understand its command line; " + said
	case end.Exit == 126 || end.Exit == 127:
		return task.Environment, "the interpreter could not be started; " + said
	}
	return task.Crashed, fmt.Sprintf("the generator ended with exit status %d; %s", end.Exit, said)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimRight(text, " \t\r\n"), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if len(last) > 300 {
		last = toValid(last[:300]) + "..."
	}
	return last
}

func toValid(s string) string { return strings.ToValidUTF8(s, "?") }
