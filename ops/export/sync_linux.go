package export

import (
	"os"

	"golang.org/x/sys/unix"
)

// canSyncAll says that syncAll waits for all files: one call for many costs less than one for each.
const canSyncAll = true

// syncAll waits until a file, and all that was written to its file system before, is on the disk.
func syncAll(f *os.File) error { return unix.Syncfs(int(f.Fd())) }

// beginSync begins to write bytes of a file to the disk, and does not wait. To fail is no harm: syncAll reports it.
func beginSync(f *os.File, from, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), from, n, unix.SYNC_FILE_RANGE_WRITE)
}
