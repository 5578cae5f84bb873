package sandbox

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Landlock returns the version of the kernel's Landlock, or 0 if it has none of use: with version 1 (before Linux 5.19)
// files cannot be moved between folders, whatever is allowed there.
func Landlock() int {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || version < 2 {
		return 0
	}
	return int(version)
}

// Rights to a file; to read below a folder; to do anything there but use devices. REFER is to move a file to another
// folder.
const (
	fileRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
		unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	readRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	allRights  = fileRights | readRights | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
)

// restrict takes from this thread, and from what it starts, all files but those below the scratch folder, what may be
// read, some single files and /dev/shm, and (version 6) signals and abstract sockets of processes outside, as far as
// the kernel can. Of these only the scratch folder must exist. The network is left alone: some generators fetch their
// material.
//
// The library for this is not used because it restricts all threads, with C: every program and test would be linked by
// the C compiler.
func restrict(scratch string, readable, files []string) error {
	version := Landlock()
	if version == 0 {
		return nil
	}
	rules := unix.LandlockRulesetAttr{Handled_access_fs: allRights | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV}
	if version < 3 {
		rules.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version < 5 {
		rules.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if version >= 6 {
		rules.Scoped = unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	set, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rules)),
		unsafe.Sizeof(rules), 0)
	if errno != 0 {
		return fmt.Errorf("landlock_create_ruleset: %w", errno)
	}
	defer unix.Close(int(set))
	for _, allowed := range []struct {
		rights uint64
		paths  []string
	}{{readRights, readable}, {allRights, []string{scratch, "/dev/shm"}}, {fileRights, files}} {
		for _, path := range allowed.paths {
			f, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
			if errors.Is(err, os.ErrNotExist) && path != scratch {
				continue
			}
			if err != nil {
				return fmt.Errorf("open %s: %w", path, err)
			}
			rule := unix.LandlockPathBeneathAttr{Allowed_access: allowed.rights & rules.Handled_access_fs, Parent_fd: int32(f)}
			_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, set, unix.LANDLOCK_RULE_PATH_BENEATH,
				uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
			_ = unix.Close(f)
			if errno != 0 {
				return fmt.Errorf("landlock_add_rule for %s: %w", path, errno)
			}
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, set, 0, 0); errno != 0 {
		return fmt.Errorf("landlock_restrict_self: %w", errno)
	}
	return nil
}
