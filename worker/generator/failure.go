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
	because := func(what string) string {
		if last == "" {
			return what + "; it said nothing"
		}
		return what + ": " + last
	}
	exception, _, _ := strings.Cut(last, ":")
	if i := strings.LastIndex(exception, "."); i >= 0 { // socket.gaierror, cv2.error
		exception = exception[i+1:]
	}
	switch {
	case strings.Contains(last, "No space left on device") || strings.Contains(last, "[Errno 28]"):
		return task.DiskFull, because("the disk was full")
	case strings.Contains(last, "File too large") || strings.Contains(last, "[Errno 27]") ||
		end.Signal == "file size limit exceeded":
		return task.UnsafeOutput, because("a file grew too large")
	case exception == "MemoryError" || exception == "_ArrayMemoryError" ||
		strings.Contains(last, "Cannot allocate memory"):
		return task.OutOfMemory, because("the generator got no more memory")
	case end.Signal == "killed" || end.Exit == 137:
		return task.OutOfMemory, because("the generator was killed (SIGKILL), as a system short of memory does")
	case end.Signal != "":
		return task.Crashed, because(fmt.Sprintf("the generator died of a signal (%s)", end.Signal))
	case exception == "ModuleNotFoundError" || exception == "ImportError":
		return task.Environment, because("a module is missing")
	case strings.Contains(last, "cannot open shared object file"):
		return task.Environment, because("a library is missing on the machine")
	case exception == "gaierror" || exception == "URLError" || exception == "ConnectionError" ||
		exception == "NewConnectionError" || exception == "ConnectError":
		return task.Environment, because("the generator wanted the network")
	case end.Exit == 2 && strings.Contains(stderr, "usage:"):
		return task.Environment, because("the generator does not understand its command line")
	case end.Exit == 126 || end.Exit == 127:
		return task.Environment, because("the interpreter could not be started")
	}
	return task.Crashed, because(fmt.Sprintf("exit status %d", end.Exit))
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
