package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Harden keeps other processes of the same user, generators above all, from reading the worker's memory and environment
// through /proc, and makes orphans of a sandbox that was killed the worker's children.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the worker undumpable: %w", err)
	}
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// confine restricts this thread and all it starts, as far as the kernel can:
// Landlock is of use since Linux 5.19, and Lambda's is older.
func confine(scratch string, dirs []string) error {
	// When memory is short the generator goes, not the worker. Raising the score needs no right.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0)
	if err := errors.Join(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0),
		unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}),
		// The generator shall not steer its sandbox either. Comes after the score: what /proc shows of an undumpable
		// process belongs to root.
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0),
		// Landlock sets this, but only where there is Landlock.
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); err != nil {
		return err
	}
	// Root's rights reach past Landlock: CAP_PERFMON reads every process's environment. What is started from here has
	// none. An ordinary user has no rights to lose, and may not say so.
	for right := range uintptr(unix.CAP_LAST_CAP + 1) {
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, right, 0, 0, 0)
	}
	system := []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/nix", "/proc", "/sys",
		"/dev", "/var/cache/fontconfig", "/var/lib/fonts"}
	return restrict(scratch, append(system, dirs...),
		[]string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"})
}

// setApart gives a process namespaces of its own for network and mounts. Root may do that; anybody else needs a user
// namespace too, in which they stay themselves, with the two rights that takeAway needs.
func setApart(a *syscall.SysProcAttr) {
	a.Cloneflags = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN}
	}
}

// visible is held while other processes of the user may see this one.
var visible sync.Mutex

// startApart starts a process with setApart. An ordinary user must be able to see it for that: what Harden hides
// belongs to root, the map of a new user namespace, too. For that moment it is undone, where Landlock keeps generators
// from using it.
func startApart(cmd *exec.Cmd) error {
	visible.Lock()
	defer visible.Unlock()
	hidden, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err == nil && hidden == 0 && os.Getuid() != 0 && Landlock() > 0 {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
			return err
		}
		defer func() {
			if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
				panic(err) // it never fails; credentials would be seen
			}
		}()
	}
	return cmd.Start()
}

// takeAway leaves a process in namespaces of its own nothing of the network but the loopback, and a /dev/shm that
// cannot be written: Lambda has none. That stays as it is if a folder that the process needs lies in it. It must come
// before confine, which gives up the rights it needs.
func takeAway(needed ...string) (a Apart) {
	a.Network = true
	if s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
		if lo, err := unix.NewIfreq("lo"); err == nil {
			lo.SetUint16(unix.IFF_UP)
			_ = unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo) // without it only what talks to itself fails
		}
		_ = unix.Close(s)
	}
	const shm = "/dev/shm"
	resolved := func(dir string) string { // as the kernel sees it
		if found, err := filepath.EvalSymlinks(dir); err == nil {
			return found + "/"
		}
		return dir + "/"
	}
	kept := slices.ContainsFunc(needed, func(dir string) bool { return strings.HasPrefix(resolved(dir), resolved(shm)) })
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err == nil && !kept {
		a.Shm = unix.Mount("none", shm, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") == nil
	}
	if _, err := os.Stat(shm); errors.Is(err, fs.ErrNotExist) {
		a.Shm = true
	}
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	return a
}

// limitMemory bounds what a process that was just started, and those that it starts, may address.
func limitMemory(pid int, bytes int64) {
	_ = unix.Prlimit(pid, unix.RLIMIT_AS, &unix.Rlimit{Cur: uint64(bytes), Max: uint64(bytes)}, nil)
}

// childAttributes put the generator into a session of its own and let it die with its sandbox.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}

// killOrphans kills and reaps the children of this process until there are none.
// Mostly there are none to begin with, and the process table need not be read.
func killOrphans() {
	for {
		if _, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err == syscall.ECHILD {
			return
		}
		for pid, parent := range Processes() {
			if parent == os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if _, err := syscall.Wait4(-1, nil, 0, nil); err != nil && err != syscall.EINTR {
			return // ECHILD
		}
	}
}

// KillStrays kills the processes of a sandbox that was itself killed. They are known by their temporary folder.
func KillStrays(scratch string, patience time.Duration) {
	mark := []byte("TMPDIR=" + filepath.Join(scratch, "tmp") + "\x00")
	// one may start another before it is killed
	for began := time.Now(); time.Since(began) < patience; time.Sleep(strayPoll) {
		found := false
		for pid := range Processes() {
			if pid == os.Getpid() {
				continue
			}
			if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err == nil && bytes.Contains(env, mark) {
				found = true
				_ = syscall.Kill(pid, syscall.SIGKILL)
				_, _ = syscall.Wait4(pid, nil, 0, nil)
			}
		}
		if !found {
			return
		}
	}
}

// strayPoll gives a killed process the time to end.
const strayPoll = 10 * time.Millisecond

// Processes reads the process table: the parent of each process.
func Processes() map[int]int {
	table := map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// The name, in parentheses, may hold anything: what follows it is counted.
		if fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); len(fields) > 1 {
			table[pid], _ = strconv.Atoi(fields[1])
		}
	}
	return table
}
