package generator

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
)

func peakRSS(state *os.ProcessState) int64 {
	if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
		return usage.Maxrss << 10 // Linux counts kibibytes
	}
	return 0
}

// diskSpace returns what is free on the disk of a folder, and its size, in bytes.
func diskSpace(dir string) (free, size int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize, nil
}

// ownProcess stands for this process.
const ownProcess = 0

func proc(pid int, file string) string {
	if pid == ownProcess {
		return "/proc/self/" + file
	}
	return "/proc/" + strconv.Itoa(pid) + "/" + file
}

// listsChildren reports whether the kernel lists the children of a thread.
var listsChildren = sync.OnceValue(func() bool {
	_, err := os.Stat("/proc/thread-self/children")
	return err == nil
})

// family returns a process and its descendants. Where the kernel lists children, that takes some reads for each;
// elsewhere all processes of the machine are read, which takes 1 ms a hundred.
func family(pid int) []int {
	if !listsChildren() {
		return descendants(pid, sandbox.Processes())
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		tasks := proc(all[i], "task/")
		threads, _ := os.ReadDir(tasks)
		for _, thread := range threads {
			list, _ := os.ReadFile(tasks + thread.Name() + "/children")
			for _, field := range bytes.Fields(list) {
				if child, err := strconv.Atoi(string(field)); err == nil && !slices.Contains(all, child) {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

func descendants(root int, parents map[int]int) []int {
	all := []int{root}
	for pid := range parents {
		for up, steps := parents[pid], 0; up > 1 && steps < 64; up, steps = parents[up], steps+1 {
			if up == root {
				all = append(all, pid)
				break
			}
		}
	}
	return all
}

// residentMemory sums up the memory in bytes that processes have and the kernel cannot drop: not the libraries they
// map. What several of them share is counted for each.
func residentMemory(pids ...int) (sum int64) {
	for _, pid := range pids {
		text, _ := os.ReadFile(proc(pid, "status"))
		sum += fields(text, "RssAnon", "RssShmem")
	}
	return sum
}

// proportionalMemory sums up the same, but divides what is shared among those that share it. A process that does not
// show it (another user's, or before Linux 5.9) counts with its resident memory.
func proportionalMemory(pids ...int) (sum int64) {
	for _, pid := range pids {
		text, err := os.ReadFile(proc(pid, "smaps_rollup"))
		if err != nil || !bytes.Contains(text, []byte("Pss_Anon:")) {
			sum += residentMemory(pid)
			continue
		}
		sum += fields(text, "Pss_Anon", "Pss_Shmem")
	}
	return sum
}

// fields sums up lines of a file of /proc that count in kB, in bytes.
func fields(text []byte, names ...string) (sum int64) {
	for line := range bytes.Lines(text) {
		if name, value, _ := bytes.Cut(line, []byte(":")); slices.Contains(names, string(name)) {
			n, _ := strconv.ParseInt(string(bytes.TrimSuffix(bytes.TrimSpace(value), []byte(" kB"))), 10, 64)
			sum += n << 10
		}
	}
	return sum
}
