//go:build !linux

package generator

import (
	"os"
	"syscall"
)

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
