package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Where the system does not let ops worker take the network away, it says so before it begins, and
// nowhere else: here root without the right that it needs, as in a container.
func TestWorkerSaysWhatItLeaves(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to give rights away")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip(err)
	}
	s := localSite(t, 3, "good")
	for _, test := range []struct {
		name  string
		under []string
		says  bool
	}{
		{"with the right", nil, false},
		{"without it", []string{setpriv, "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"}, true},
	} {
		cmd := s.command("worker", "--workers", "1", "--idle", "1ms")
		cmd.Args = append(test.under, cmd.Args...)
		if cmd.Path, err = exec.LookPath(cmd.Args[0]); err != nil {
			t.Fatal(err)
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", test.name, err, out)
		}
		const note = "note: generators have this machine's network"
		if strings.Contains(string(out), note) != test.says {
			t.Errorf("%s: %s", test.name, out)
		}
	}
}
