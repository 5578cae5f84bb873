package generator

import (
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestCauseOf(t *testing.T) {
	const traceback = "Traceback (most recent call last):\n  File \"x.py\", line 1, in <module>\n"
	for _, test := range []struct {
		name, stderr string
		end          status
		want         task.Cause
	}{
		{"exception", traceback + "ValueError: no", status{Exit: 1}, task.Crashed},
		{"silent", "", status{Exit: 1}, task.Crashed},
		{"missing module", traceback + "ModuleNotFoundError: No module named 'cv2'\n", status{Exit: 1}, task.Environment},
		{"missing library", traceback + "ImportError: libGL.so.1: cannot open shared object file: No such file or directory",
			status{Exit: 1}, task.Environment},
		{"missing library through ctypes",
			traceback + "OSError: libx.so: cannot open shared object file: No such file or directory", status{Exit: 1},
			task.Environment},
		{"import that was survived", "warning: ImportError: no cv2, going on\n" + traceback +
			"ModuleNotFoundError: No module named 'fast'\nfalling back\n" + traceback + "ValueError: no\n", status{Exit: 1},
			task.Crashed},
		{"text about an import", "fatal: saw ImportError: x", status{Exit: 1}, task.Crashed},
		{"usage", "usage: generate.py [-h]\ngenerate.py: error: unrecognized arguments: --seed 7\n", status{Exit: 2},
			task.Environment},
		{"exit 2 without usage", "no", status{Exit: 2}, task.Crashed},
		{"network", traceback + "socket.gaierror: [Errno -3] Temporary failure in name resolution", status{Exit: 1},
			task.Environment},
		{"urllib", traceback + "urllib.error.URLError: <urlopen error [Errno 111] Connection refused>", status{Exit: 1},
			task.Environment},
		{"requests", traceback + "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='x', port=443)",
			status{Exit: 1}, task.Environment},
		{"memory", traceback + "MemoryError", status{Exit: 1}, task.OutOfMemory},
		{"numpy memory", traceback + "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 8 GiB", status{Exit: 1},
			task.OutOfMemory},
		{"killed", "", status{Exit: -1, Signal: "killed"}, task.OutOfMemory},
		{"killed in a shell", "", status{Exit: 137}, task.OutOfMemory},
		{"segmentation fault", "Fatal Python error", status{Exit: -1, Signal: "segmentation fault"}, task.Crashed},
		{"disk", traceback + "OSError: [Errno 28] No space left on device: '/x'", status{Exit: 1}, task.DiskFull},
		{"path that looks like a cause", traceback + "FileNotFoundError: [Errno 2] No such file or directory: 'ImportError'",
			status{Exit: 1}, task.Crashed},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, detail := causeOf(test.end, test.stderr); got != test.want || detail == "" {
				t.Errorf("got %s (%s), want %s", got, detail, test.want)
			}
		})
	}
}
