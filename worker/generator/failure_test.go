package generator

import (
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type status = sandbox.Status

func TestExplain(t *testing.T) {
	const traceback = "Traceback (most recent call last):\n  File \"x.py\", line 1, in <module>\n"
	for _, test := range []struct {
		name, stderr string
		end          status
		want         task.Cause
		reason       Reason
	}{
		{"exception", traceback + "ValueError: no", status{Exit: 1}, task.Crashed, ""},
		{"silent", "", status{Exit: 1}, task.Crashed, ""},
		{"missing module", traceback + "ModuleNotFoundError: No module named 'cv2'\n", status{Exit: 1}, task.Environment, MissingModule},
		{"missing library", traceback + "ImportError: libGL.so.1: cannot open shared object file: No such file or directory",
			status{Exit: 1}, task.Environment, MissingModule},
		{"missing library through ctypes",
			traceback + "OSError: libx.so: cannot open shared object file: No such file or directory", status{Exit: 1},
			task.Environment, ""},
		{"import that was survived", "warning: ImportError: no cv2, going on\n" + traceback +
			"ModuleNotFoundError: No module named 'fast'\nfalling back\n" + traceback + "ValueError: no\n", status{Exit: 1},
			task.Crashed, ""},
		{"text about an import", "fatal: saw ImportError: x", status{Exit: 1}, task.Crashed, ""},
		{"usage", "usage: generate.py [-h]\ngenerate.py: error: unrecognized arguments: --seed 7\n", status{Exit: 2},
			task.Environment, CommandLine},
		{"exit 2 without usage", "no", status{Exit: 2}, task.Crashed, ""},
		{"network", traceback + "socket.gaierror: [Errno -3] Temporary failure in name resolution", status{Exit: 1},
			task.Environment, Network},
		{"urllib", traceback + "urllib.error.URLError: <urlopen error [Errno 111] Connection refused>", status{Exit: 1},
			task.Environment, Network},
		{"requests", traceback + "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='x', port=443)",
			status{Exit: 1}, task.Environment, Network},
		{"memory", traceback + "MemoryError", status{Exit: 1}, task.OutOfMemory, ""},
		{"numpy memory", traceback + "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 8 GiB", status{Exit: 1},
			task.OutOfMemory, ""},
		{"killed", "", status{Exit: -1, Signal: "killed"}, task.OutOfMemory, ""},
		{"killed in a shell", "", status{Exit: 137}, task.OutOfMemory, ""},
		{"segmentation fault", "Fatal Python error", status{Exit: -1, Signal: "segmentation fault"}, task.Crashed, ""},
		{"disk", traceback + "OSError: [Errno 28] No space left on device: '/x'", status{Exit: 1}, task.DiskFull, ""},
		{"path that looks like a cause", traceback + "FileNotFoundError: [Errno 2] No such file or directory: 'ImportError'",
			status{Exit: 1}, task.Crashed, ""},
		{"read-only", traceback + "OSError: [Errno 30] Read-only file system", status{Exit: 1}, task.Crashed, ReadOnly},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := Failure{Stderr: test.stderr}
			if f.explain(test.end); f.Cause != test.want || f.Reason != test.reason || f.Detail == "" {
				t.Errorf("got %+v, want %s because of %q", f, test.want, test.reason)
			}
		})
	}
}
