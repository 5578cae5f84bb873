package s3test

import (
	"os"
	"syscall"
	"testing"
)

// Memory is the folder of a file system in memory with at least 4 GB of room, or "".
func Memory() string {
	const shm = "/dev/shm"
	var s syscall.Statfs_t
	if err := syscall.Statfs(shm, &s); err != nil || s.Bavail*uint64(s.Bsize) < 4<<30 {
		return ""
	}
	return shm
}

// Folder is a folder for what a server of a test stores, removed at the test's end. It lies in memory where there is
// room: on a disk such servers wait most of the time.
func Folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(Memory(), "vm-dataset-bucket-")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	return dir
}
