package store_test

import (
	"syscall"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// A shard is made and sent without a copy of it on the disk: where there is no
// room for one, it is stored all the same.
func TestShardNeedsNoDisk(t *testing.T) {
	s, _ := newStore(t)
	list := makeSamples(t, 0, 4, 5<<20)
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs the right to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	t.Setenv("TMPDIR", disk)
	t.Chdir(disk)
	shard, err := s.PutShard(t.Context(), "maze", task.Chunk{Cell: task.Range{End: 4}, Keep: task.Range{End: 4}}, 1, list)
	check(t, err)
	if data := content(t, s, shard.Key); int64(len(data)) != shard.Size || shard.Size < 20<<20 {
		t.Errorf("%d bytes are stored of %+v", len(data), shard)
	}
}
