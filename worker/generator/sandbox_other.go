//go:build !linux

package generator

import (
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Harden does nothing here: there is no /proc to read a worker's environment from.
func Harden() error { return nil }

// Landlock returns 0: it is Linux's.
func Landlock() int { return 0 }

// Outside Linux a generator is confined by its process group and its working folder alone.
func confine(string, []string) error { return nil }

// Outside Linux nothing can be taken away from a generator.
func setApart(*syscall.SysProcAttr)         {}
func startApart(cmd *exec.Cmd) error        { return cmd.Start() }
func takeAway(...string) Apart              { return Apart{} }
func limitMemory(int, int64)                {}
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
func killOrphans()                          {}
func killStrays(string, time.Duration)      {}

func peakRSS(state *os.ProcessState) int64 {
	if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
		return int64(usage.Maxrss) // macOS counts bytes
	}
	return 0
}

func diskSpace(dir string) (free, size int64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), int64(s.Blocks) * int64(s.Bsize), nil
}

// Outside Linux memory is not watched.
const ownProcess = 0

func family(int) []int                { return nil }
func residentMemory(...int) int64     { return 0 }
func proportionalMemory(...int) int64 { return 0 }
