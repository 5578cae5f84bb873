package download

import (
	"os"
	"path/filepath"
	"testing"
)

// A second download to a folder is refused, and takes nothing away from the first.
func TestSecondDownload(t *testing.T) {
	to := t.TempDir()
	first, err := open(nil, Options{To: to})
	if err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(to, partial, "1")
	if err := os.WriteFile(half, []byte("half a file"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := open(nil, Options{To: to}); err == nil || err.Error() != "another download to "+to+" is under way" {
		t.Errorf("the second: %v", err)
	}
	if _, err := os.Stat(half); err != nil {
		t.Errorf("what the first is at: %v", err)
	}
	first.unlock()
	third, err := open(nil, Options{To: to})
	if err != nil {
		t.Fatal(err)
	}
	third.unlock()
}
