package export_test

import (
	"os"

	"golang.org/x/sys/unix"
)

// Most of the time that exports take here they wait for the disk, so theirs is memory if there is enough.
func init() {
	var s unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &s); err == nil && s.Bavail*uint64(s.Bsize) > 4<<30 && os.Getenv("TMPDIR") == "" {
		if err := os.Setenv("TMPDIR", "/dev/shm"); err != nil {
			panic(err)
		}
	}
}
