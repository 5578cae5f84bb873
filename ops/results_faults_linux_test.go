package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// cutOnce is a proxy's handler that breaks the connection of each object's first
// answer in the middle of its body.
func cutOnce() func(w http.ResponseWriter, r *http.Request, next http.Handler) {
	var seen sync.Map
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if _, again := seen.LoadOrStore(r.URL.Path, true); again || !isContent(r) {
			next.ServeHTTP(w, r)
			return
		}
		cutBody(w, r, next)
	}
}

func cutBody(w http.ResponseWriter, r *http.Request, next http.Handler) {
	answer := httptest.NewRecorder()
	next.ServeHTTP(answer, r)
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()[:answer.Body.Len()/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// Every connection breaks once, in the middle of an object, and nothing is lost.
func TestDownloadTriesAgain(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	stored(t, c.store, "maze", task.Range{Start: 0, End: 5}, task.Files, "")
	stored(t, c.store, "maze", task.Range{Start: 5, End: 10}, task.Tar, "")
	for _, unpack := range []bool{false, true} {
		flaky := &cloud{store: c.through(t, cutOnce())}
		to := t.TempDir()
		want := map[bool]int{false: 11, true: 20}[unpack]
		if said, err := fetch(t, flaky, to, unpack); err != nil || len(files(t, to)) != want {
			t.Errorf("unpack %t: %d files, %v %s", unpack, len(files(t, to)), err, said)
		}
	}
}

// What cannot be had is named with its reason, and everything else is downloaded,
// also that of the generators behind it.
func TestDownloadNamesEachFault(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	long := strings.Repeat("n", 255)
	b := &bucket{t: t, cloud: c, name: "c"}
	add := func(names ...string) func(int, map[string][]byte) {
		return func(_ int, files map[string][]byte) {
			for _, name := range names {
				files[name] = []byte(name)
			}
		}
	}
	stored(t, c.store, "a", task.Range{Start: 0, End: 3}, task.Files, "", add(long[:240]))
	b.flip(task.DefaultDataset.FileKey("a", "d_00000001", "prompt.txt"))
	shard := stored(t, c.store, "b", task.Range{Start: 0, End: 3}, task.Tar, "", add("x", "x.part"))
	stored(t, c.store, "b", task.Range{Start: 3, End: 6}, task.Tar, "", add(long, long[:251]))
	b.flip(shard.Shard.Key)
	cut := stored(t, c.store, "c", task.Range{Start: 0, End: 2}, task.Files, "", add("x", "x.part"))
	stored(t, c.store, "c", task.Range{Start: 2, End: 4}, task.Files, "")
	b.put(stored(t, c.store, "c", task.Range{Start: 4, End: 6}, task.Files, "").ReadFrom, []byte("{"))
	hostile := stored(t, c.store, "d", task.Range{Start: 0, End: 1}, task.Files, "")
	b.edit(hostile, `"name":"prompt.txt"`, `"name":"../prompt.txt"`)
	stored(t, c.store, "e", task.Range{Start: 0, End: 2}, task.Files, "", add("x", "x.part"))
	broken := task.DefaultDataset.FileKey("c", cut.Samples[0].ID, "x.part")
	web := c.proxy(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, broken) {
			cutBody(w, r, next)
		}
		next.ServeHTTP(w, r)
	})
	to := t.TempDir()
	cmd := c.ops(t, t.TempDir(), "results", "download", "--to", to, "--unpack")
	cmd.Env = append(cmd.Env, "AWS_ENDPOINT_URL_S3="+web)
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != ui.ExitProblem {
		t.Errorf("%v", err)
	}
	for _, word := range []string{"a/d_00000001/prompt.txt is not what its receipt says", "b/b_00000000_00000002.tar.gz",
		"c/d_00000000/x.part cannot be read", "receipts/v1/c/00000004_00000005.json cannot be read",
		"receipts/v1/d/00000000_00000000.json cannot be trusted", "5 objects"} {
		if !strings.Contains(string(out), word) {
			t.Errorf("%q is not in it", word)
		}
	}
	if t.Failed() {
		t.Log(string(out))
	}
	got := files(t, to)
	for id, names := range map[string]int{"a": 3*3 - 1, "c": 2*4 - 1 + 2*2, "d": 0, "e": 2 * 4} {
		if n := len(slices.DeleteFunc(slices.Clone(got),
			func(s string) bool { return !strings.HasPrefix(s, id+"/") })); n != names {
			t.Errorf("of %s there are %d files, want %d", id, n, names)
		}
	}
	for _, name := range []string{"b/d_00000004/" + long, "b/d_00000004/" + long[:251], "e/d_00000001/x",
		"e/d_00000001/x.part"} {
		if !slices.Contains(got, name) {
			t.Errorf("%.40s… is not there", name)
		}
	}
	if text, err := os.ReadFile(filepath.Join(to, "e/d_00000001/x")); err != nil || string(text) != "x" {
		t.Errorf("x holds %q, %v", text, err)
	}
}

// A download that is stopped says so, wherever it is, and what is there is whole;
// the next one goes on.
func TestDownloadStopped(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	stored(t, c.store, "a", task.Range{Start: 0, End: 20}, task.Files, "")
	second := stored(t, c.store, "a", task.Range{Start: 20, End: 40}, task.Files, "").ReadFrom
	last := stored(t, c.store, "b", task.Range{Start: 0, End: 2}, task.Files, "").ReadFrom
	for at, nth := range map[string]int32{task.DefaultDataset.FileKey("a", "d_00000020", "prompt.txt"): 1, second: 1,
		last: 1} {
		arrived := make(chan struct{})
		var n atomic.Int32
		web := c.proxy(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if strings.HasSuffix(r.URL.Path, strings.TrimSuffix(at, " again")) && n.Add(1) == nth {
				close(arrived)
				<-r.Context().Done()
				return
			}
			next.ServeHTTP(w, r)
		})
		dir := t.TempDir()
		cmd := c.ops(t, dir, "results", "download", "--to", "got")
		cmd.Env = append(cmd.Env, "AWS_ENDPOINT_URL_S3="+web)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		must(t, cmd.Start())
		<-arrived
		must(t, cmd.Process.Signal(os.Interrupt))
		if err := cmd.Wait(); err == nil || !strings.Contains(said.String(), "ops: stopped") {
			t.Errorf("at %s: %v: %s", at, err, said.String())
		}
		c.holdsWhole(t, filepath.Join(dir, "got"))
		if out, err := c.ops(t, dir, "results", "download", "--to", "got").CombinedOutput(); err != nil {
			t.Errorf("at %s: %v: %s", at, err, out)
		}
		if got := files(t, filepath.Join(dir, "got")); len(got) != 84 {
			t.Errorf("at %s: %d files", at, len(got))
		}
	}
}

// holdsWhole checks that every file below a folder is the object of its name.
func (c *cloud) holdsWhole(t *testing.T, dir string) {
	t.Helper()
	b := &bucket{t: t, cloud: c}
	for _, name := range files(t, dir) {
		text, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		if !bytes.Equal(text, b.get(task.DefaultDataset.Prefix(task.DataKind)+name)) {
			t.Errorf("%s is half written", name)
		}
	}
}

// A full disk is told in one sentence, and what is there is whole.
func TestDownloadToFullDisk(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	stored(t, c.store, "a", task.Range{Start: 0, End: 4}, task.Files, "", func(i int, files map[string][]byte) {
		files["large.bin"] = bytes.Repeat([]byte{byte(i)}, 100_000)
	})
	dir := t.TempDir()
	to := filepath.Join(dir, "got")
	smallDisk(t, to, "256k")
	out, err := c.ops(t, dir, "results", "download", "--to", to).CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != ui.ExitFailed || !strings.Contains(string(out), to+": no space left on device") ||
		strings.Count(string(out), "no space") != 1 {
		t.Errorf("%v: %s", err, out)
	}
	c.holdsWhole(t, to)
}

// smallDisk mounts a file system of its own.
func smallDisk(t *testing.T, dir, size string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs the right to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// A file that was downloaded is not read again, unless its size or time has
// changed; --check reads every one.
func TestDownloadAgain(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	committed := func(r store.Receipt) {
		r.Committed = time.Date(2026, 8, 1, 10, 0, 0, 123456789, time.UTC)
		c.rewrite(t, r)
	}
	committed(stored(t, c.store, "a", task.Range{Start: 0, End: 5}, task.Files, ""))
	committed(stored(t, c.store, "a", task.Range{Start: 5, End: 10}, task.Tar, ""))
	for _, unpack := range []bool{false, true} {
		to := t.TempDir()
		count := map[bool]string{false: "11", true: "20"}[unpack]
		if said, err := fetch(t, c, to, unpack); err != nil || !strings.Contains(said, `"files": `+count+`,`) {
			t.Fatalf("%v %s", err, said)
		}
		name := filepath.Join(to, "a", "d_00000001", "prompt.txt")
		if unpack {
			name = filepath.Join(to, "a", "d_00000007", "prompt.txt")
		}
		info, err := os.Stat(name)
		must(t, err)
		text, err := os.ReadFile(name)
		must(t, err)
		other := bytes.ToUpper(text)
		for _, test := range []struct {
			name   string
			change func()
			check  bool
			fresh  string
		}{
			{"nothing", func() {}, false, "0"},
			{"bytes, behind its back", func() {
				must(t, os.WriteFile(name, other, 0o600))
				must(t, os.Chtimes(name, info.ModTime(), info.ModTime()))
			}, false, "0"},
			{"nothing, but everything is checked", func() {}, true, "1"},
			{"the time", func() { must(t, os.Chtimes(name, time.Now(), time.Now())) }, false, "0"},
			{"the bytes", func() { must(t, os.WriteFile(name, other, 0o600)) }, false, "1"},
			{"the size", func() { must(t, os.Truncate(name, 1)); must(t, os.Chtimes(name, info.ModTime(), info.ModTime())) },
				false, "1"},
			{"it is gone", func() { must(t, os.Remove(name)) }, false, "1"},
			{"nothing again, and everything is checked", func() {}, true, "0"},
		} {
			test.change()
			args := []string{"--json", "results", "download", "--to", to}
			if test.check {
				args = append(args, "--check")
			}
			if unpack {
				args = append(args, "--unpack")
			}
			out, err := c.ops(t, t.TempDir(), args...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), `"files": `+test.fresh+`,`) {
				t.Errorf("%s has changed (unpack %t): %v %s", test.name, unpack, err, out)
			}
		}
		if got, _ := os.ReadFile(name); !bytes.Equal(got, text) {
			t.Errorf("in the end it holds %q", got)
		}
	}
}
