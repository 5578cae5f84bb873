package generator

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Python finds a user and a home, also where no passwd file names who it runs as.
func TestUser(t *testing.T) {
	const program = "import getpass, os.path, pathlib; print(getpass.getuser(), os.path.expanduser('~'), pathlib.Path.home())"
	path := "/usr/bin/python3" // one that every user may run
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath("python3"); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(path, "-c", program)
	cmd.Dir = "/"
	cmd.Env = Environ(&Generator{Python: path}, 1, "/scratch")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
	}
	out, err := cmd.CombinedOutput()
	home := filepath.Join("/scratch", "home")
	if want := "generator " + home + " " + home + "\n"; err != nil || string(out) != want {
		t.Errorf("it says %q, %v; want %q", out, err, want)
	}
}
