package export

import (
	"os"

	"golang.org/x/sys/unix"
)

// canSyncAll says that syncAll waits for all files: one call for many costs less than one for each.
const canSyncAll = true

// syncAll waits until all that was written to the file system of a file is on the disk.
func syncAll(f *os.File) error { return unix.Syncfs(int(f.Fd())) }
