package s3server

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("needs the right to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := store{client(start(t, Config{Dir: dir}).URL()), "bucket"}
	body := make([]byte, 1<<20)
	var err error
	n := 0
	for ; err == nil && n < 10; n++ {
		err = s.put(t.Context(), fmt.Sprint(n), body, false)
	}
	if err == nil {
		t.Fatal("10 MB went onto a disk of 4 MB")
	}
	if _, err := s.HeadObject(t.Context(),
		&s3.HeadObjectInput{Bucket: &s.bucket, Key: aws.String(fmt.Sprint(n - 1))}); status(err) != http.StatusNotFound {
		t.Errorf("what did not fit is there: %v", err)
	}
	if _, err := s.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &s.bucket, Key: aws.String("0")}); err != nil {
		t.Fatal(err)
	}
	if err := s.put(t.Context(), "again", body, true); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
