package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// deployFile is a file of deploy/.
func deployFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "deploy", name))
	must(t, err)
	return string(text)
}

// What the files for other schedulers call is a command of ops.
func TestDeployCommands(t *testing.T) {
	outputs := filepath.Join(t.TempDir(), "outputs.json")
	must(t, os.WriteFile(outputs, nil, 0o600))
	replace := strings.NewReplacer("/etc/vm-dataset/outputs.json", outputs, "$OPS_OUTPUTS", outputs,
		"${SLURM_CPUS_PER_TASK:-1}", "4", `"`, "", ",", "")
	for name, pattern := range map[string]string{"vm-dataset-worker.service": `(?m)^ExecStart=\S+/ops (.*)$`,
		"kubernetes.yaml": `(?m)^ *args: \[(.*)\]$`, "slurm.sh": `(?m)^ops (.*) &$`} {
		found := regexp.MustCompile(pattern).FindStringSubmatch(deployFile(t, name))
		if found == nil {
			t.Fatalf("%s runs no ops", name)
		}
		var cli CLI
		parser, err := kong.New(&cli, variables(), spans)
		must(t, err)
		if _, err := parser.Parse(strings.Fields(replace.Replace(found[1]))); err != nil {
			t.Errorf("%s: ops %s: %v", name, found[1], err)
		}
	}
}

// systemd reads the unit without a word. It was run by hand: docs/WORKERS.md.
func TestDeploySystemd(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze")
	}
	ops, err := exec.LookPath("ops")
	must(t, err)
	unit := deployFile(t, "vm-dataset-worker.service")
	unit = strings.NewReplacer("/usr/local/bin/ops", ops, "User=vm-dataset", "User=root").Replace(unit)
	for text, right := range map[string]bool{unit: true, strings.Replace(unit, "KillMode=mixed", "KillMode=some", 1): false} {
		path := filepath.Join(t.TempDir(), "vm-dataset-worker.service")
		must(t, os.WriteFile(path, []byte(text), 0o644))
		out, err := exec.Command(analyze, "verify", path).CombinedOutput()
		if right != (err == nil && !strings.Contains(string(out), "vm-dataset-worker.service")) {
			t.Errorf("right is %v: %v: %s", right, err, out)
		}
	}
}

// The Kubernetes objects have the fields that Kubernetes and KEDA know. They are not run.
func TestDeployKubernetes(t *testing.T) {
	python := os.Getenv("KUBERNETES_PYTHON")
	if python == "" {
		t.Skip("KUBERNETES_PYTHON is not set: no Python with kubernetes-validate")
	}
	download := exec.Command("go", "mod", "download", "-json", "github.com/kedacore/keda/v2@v2.17.2")
	download.Dir = t.TempDir() // outside of this module, which does not need it
	out, err := download.Output()
	must(t, err)
	var keda struct{ Dir string }
	must(t, json.Unmarshal(out, &keda))
	objects := deployFile(t, "kubernetes.yaml")
	for text, right := range map[string]bool{objects: true,
		strings.Replace(objects, "maxReplicaCount", "maxReplicas", 1):                  false,
		strings.Replace(objects, "terminationGracePeriodSeconds", "gracePeriod", 1):    false,
		strings.Replace(objects, "minReplicaCount: 0", "minReplicaCount: none", 1):     false,
		strings.Replace(objects, "runAsNonRoot: true", "runAsNonRoot: [generator]", 1): false} {
		path := filepath.Join(t.TempDir(), "objects.yaml")
		must(t, os.WriteFile(path, []byte(text), 0o644))
		out, err := exec.Command(python, filepath.Join("testdata", "deploy", "validate.py"), path,
			filepath.Join(keda.Dir, "config", "crd", "bases")).CombinedOutput()
		if right != (err == nil) || right && strings.Count(string(out), "\n") != 4 {
			t.Errorf("right is %v: %v: %s", right, err, out)
		}
	}
}

// The Slurm script, run as Slurm runs it: it makes tasks, and at the signal before the time limit it hands
// its task back and ends with status 0. With Slurm it was run by hand: docs/WORKERS.md.
func TestDeploySlurm(t *testing.T) {
	t.Parallel()
	s := localSite(t, 3, "slower")
	s.submit("r", 40, 40, "slower")
	like := s.command()
	script, err := filepath.Abs(filepath.Join("..", "deploy", "slurm.sh"))
	must(t, err)
	cmd := exec.Command("bash", script)
	cmd.Dir, cmd.Env = like.Dir, append(like.Env, "SLURM_CPUS_PER_TASK=2", "SLURM_JOB_ID=1",
		"OPS_OUTPUTS="+filepath.Join(s.dir, "outputs.json"))
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	for began := time.Now(); len(s.receipts("slower")) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			_ = cmd.Process.Kill()
			t.Fatalf("nothing is committed: %s", out)
		}
	}
	must(t, cmd.Process.Signal(syscall.SIGTERM)) // of the batch shell alone
	must(t, cmd.Wait())
	if waiting, all := s.depth(); waiting != 1 || all != 1 || !strings.Contains(out.String(), "handing the tasks") {
		t.Errorf("%d of %d tasks wait: %s", waiting, all, out)
	}
}
