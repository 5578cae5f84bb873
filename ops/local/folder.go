package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Folders and files below the stack's folder.
func objectsDir(dir string) string    { return filepath.Join(dir, "s3") }
func generatorsDir(dir string) string { return filepath.Join(dir, "generators") }
func outputsFile(dir string) string   { return filepath.Join(dir, "outputs.json") }

// BucketDir returns the folder of the local stack's objects, as plain files.
func BucketDir(dir string) string { return filepath.Join(objectsDir(dir), Bucket) }

// SamplesDir returns the folder of a dataset's samples in the local stack, as plain files.
func SamplesDir(dir string, d task.Dataset) string {
	return filepath.Join(BucketDir(dir), filepath.FromSlash(d.Prefix(task.DataKind)))
}

// lockDir makes sure that no other stack, and no process of one, uses the folder. Workers and gateway inherit the lock,
// so it is free only when the last of them has ended. After a kill of the stack they end within moments: lockDir waits
// 10 s for them.
func lockDir(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		pid := readPID(f)
		if pid > 0 && syscall.Kill(pid, 0) == nil || time.Now().After(deadline) {
			f.Close()
			return nil, fmt.Errorf("a local stack is up in %s already (process %d)", dir, pid)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func readPID(f *os.File) int {
	text := make([]byte, 20)
	n, _ := f.ReadAt(text, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	return pid
}

func (s *Stack) writeOutputs() error {
	text, err := json.MarshalIndent(s.outputs, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(outputsFile(s.config.Dir), append(text, '\n'))
}

func readOutputs(dir string) (stack.Outputs, error) {
	text, err := os.ReadFile(outputsFile(dir))
	if err != nil {
		return stack.Outputs{}, err
	}
	return stack.Parse(text)
}

// ErrDown says that there is no local stack running.
var ErrDown = errors.New("the local stack is not up")

// Outputs returns the stack outputs of the local stack that runs in a folder. Its error is ErrDown if none runs there.
func Outputs(dir string) (stack.Outputs, error) {
	if _, err := PID(dir); err != nil {
		return stack.Outputs{}, err
	}
	o, err := readOutputs(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w in %s", ErrDown, dir)
	}
	return o, err
}

// PID returns the process of the stack that runs in a folder. Its error is ErrDown if none runs there.
func PID(dir string) (int, error) {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return 0, fmt.Errorf("%w in %s", ErrDown, dir)
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return 0, fmt.Errorf("%w in %s", ErrDown, dir)
	}
	return readPID(f), nil
}

// openLog opens a log file below the stack's folder for appending. One that has grown past 16 MiB is kept as .old.
func openLog(dir, name string) (*os.File, error) {
	path := filepath.Join(dir, "logs", name+".log")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err == nil && info.Size() > 16<<20 {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}
