package environment

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment/indextest"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/requirements"
)

// wheelhouse makes a folder with one tiny package and lets the installers see
// nothing else. It returns the folder.
func wheelhouse(t *testing.T) string {
	t.Helper()
	realUV(t)
	t.Setenv("PIP_CONFIG_FILE", os.DevNull)
	dir := t.TempDir()
	wheel(t, dir, "tiny_thing", "value = 41 + 1\n")
	t.Setenv("PIP_FIND_LINKS", dir)
	t.Setenv("PIP_NO_INDEX", "1")
	return dir
}

// wheel makes version 1.0 of a package of one module.
func wheel(t *testing.T, dir, module, source string) { release(t, dir, module, "1.0", source) }

// release makes a version of a package of one module.
func release(t *testing.T, dir, module, version, source string) {
	t.Helper()
	if err := indextest.Wheel(dir, module, version, source); err != nil {
		t.Fatal(err)
	}
}

// recorder collects the events of a build.
type recorder struct {
	mu     sync.Mutex
	events []Event
	seen   func(Event)
}

func (r *recorder) record(e Event) {
	r.mu.Lock()
	r.events = append(r.events, e)
	r.mu.Unlock()
	if r.seen != nil {
		r.seen(e)
	}
}

func (r *recorder) count(s Stage) (n int) {
	for _, e := range r.events {
		if e.Stage == s {
			n++
		}
	}
	return n
}

func TestBuild(t *testing.T) {
	wheelhouse(t)
	root, dir := t.TempDir(), filepath.Join(t.TempDir(), "built")
	program := preamble + "import tiny_thing\nsave('value.json', tiny_thing.value)\n"
	for name, text := range map[string]string{
		"a": "tiny-thing==1.0  # small\n", "b": "# same\nTiny_Thing == 1.0", "bad": "tiny-thing==1.0\nno-such-thing==9\n",
		"bare": "", "outside": "-r ../x.txt\n",
	} {
		write(t, filepath.Join(root, name, generator.DefaultEntry), program)
		write(t, filepath.Join(root, name, requirements.File), text)
	}
	var r recorder
	builder := &Builder{Root: root, Dir: dir, Events: r.record}
	if _, err := builder.Build(t.Context()); err != nil {
		t.Fatal(err)
	}
	index, err := generator.LoadIndex(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(index.Generators) != 5 {
		t.Errorf("got %+v", index)
	}
	find := func(name string) *generator.Generator {
		g, err := index.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	a, b := find("a"), find("b")
	if a.Problem != "" || a.Environment == "" || a.Environment != b.Environment || a.Python != b.Python {
		t.Errorf("a %+v\nb %+v", a, b)
	}
	if p := find("bad").Problem; !strings.Contains(p, filepath.Join("bad", requirements.File)) ||
		!strings.Contains(p, "no-such-thing==9") || strings.Contains(p, "\n") {
		t.Errorf("bad: %q", p)
	}
	if p := find("outside").Problem; !strings.Contains(p, "outside") {
		t.Errorf("outside: %q", p)
	}
	if g := find("bare"); g.Problem != "" || g.Environment == a.Environment {
		t.Errorf("bare: %+v", g)
	}
	if r.count(Ready) != 2 || r.count(Failed) != 1 || r.count(Installing) == 0 || r.count(Reused) != 0 {
		t.Errorf("events %+v", r.events)
	}
	if complete, _ := filepath.Glob(filepath.Join(dir, "environments", "*", "complete")); len(complete) != 2 {
		t.Errorf("complete environments: %v", complete)
	}
	if code, _ := filepath.Glob(filepath.Join(dir, "environments", a.Environment, "lib", "python3*", "site-packages",
		"__pycache__", "tiny_thing.*.pyc")); len(code) != 1 {
		t.Errorf("byte-code: %v", code)
	}
	result, err := generator.Run(t.Context(), generator.Request{Generator: b, Samples: 1, Scratch: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if got := saved[int](t, result, "value.json"); got != 42 {
		t.Errorf("the generator saw %d", got)
	}
	if _, err := generator.Run(t.Context(), generator.Request{Generator: find("bare"), Samples: 1, Scratch: t.TempDir()}); err == nil {
		t.Error("a module of another environment was found")
	}

	r = recorder{}
	builder.Events, builder.Names = r.record, []string{"a"}
	again, err := builder.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.count(Reused) != 1 || len(r.events) != 1 {
		t.Errorf("events of the second build %+v", r.events)
	}
	for name, problem := range map[string]string{"a": "", "b": "", "bare": "", "bad": NotBuilt} {
		if g, _ := again.Find(name); g.Problem != problem {
			t.Errorf("%s: problem %q, want %q", name, g.Problem, problem)
		}
	}
	builder.Names = []string{"aa"}
	if _, err := builder.Build(t.Context()); err == nil {
		t.Error("an unknown name was accepted")
	} else if _, ok := errors.AsType[*generator.UnknownError](err); !ok {
		t.Error(err)
	}
}

// bare makes a root with one generator that requires nothing.
func bare(t *testing.T, text string) string {
	t.Helper()
	root := t.TempDir()
	write(t, filepath.Join(root, "g", generator.DefaultEntry), preamble)
	write(t, filepath.Join(root, "g", requirements.File), text)
	return root
}

func TestHalfMadeEnvironmentIsRemade(t *testing.T) {
	root, dir := bare(t, ""), t.TempDir()
	build := func() (*generator.Generator, *recorder) {
		var r recorder
		index, err := (&Builder{Root: root, Dir: dir, Events: r.record}).Build(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return &index.Generators[0], &r
	}
	g, _ := build()
	path := filepath.Join(dir, "environments", g.Environment)
	spoil := map[string]func() error{
		"without marker": func() error { return os.Remove(filepath.Join(path, "complete")) },
		"without Python": func() error { return os.Remove(g.Python) },
		"dangling Python": func() error {
			return errors.Join(os.Remove(g.Python), os.Symlink(filepath.Join(dir, "gone"), g.Python))
		},
	}
	for name, action := range spoil {
		write(t, filepath.Join(path, "leftover"), "")
		if err := action(); err != nil {
			t.Fatal(err)
		}
		_, r := build()
		if _, err := os.Stat(filepath.Join(path, "leftover")); !errors.Is(err, fs.ErrNotExist) || r.count(Ready) != 1 {
			t.Errorf("%s: %v, events %+v", name, err, r.events)
		}
	}
	if out, err := exec.Command(g.Python, "-c", "print(1)").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestTwoBuildersAtOnce(t *testing.T) {
	root, dir := bare(t, ""), t.TempDir()
	var r recorder
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			index, err := (&Builder{Root: root, Dir: dir, Events: r.record}).Build(t.Context())
			if err != nil || index.Generators[0].Problem != "" {
				t.Errorf("%+v, %v", index, err)
			}
		})
	}
	group.Wait()
	if r.count(Making) != 1 || r.count(Ready) != 1 || r.count(Reused) != 3 {
		t.Errorf("events %+v", r.events)
	}
	if _, err := generator.LoadIndex(dir); err != nil {
		t.Error(err)
	}
}

// fakeUV puts a program of the name uv on the PATH: a real process that says it
// has started and never ends, with a child of its own.
func fakeUV(t *testing.T, script string) {
	t.Helper()
	bin := t.TempDir()
	path := filepath.Join(bin, "uv")
	write(t, path, "#!/bin/sh\n"+`[ "$1" = --version ] && echo uv `+UVRelease+" && exit\n"+script)
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

func TestInstallerSettings(t *testing.T) {
	root, dir := bare(t, "x"), t.TempDir()
	out := filepath.Join(t.TempDir(), "env")
	t.Setenv("TEST_OUT", out)
	fakeUV(t, `env > "$TEST_OUT"; echo "error: no" >&2; exit 1`+"\n")
	for name, value := range map[string]string{"PIP_INDEX_URL": "https://mirror.invalid/simple",
		"HTTPS_PROXY": "http://proxy.invalid:1", "PIP_FIND_LINKS": "/a /b",
		"PIP_CERT": "/cert", "PIP_TARGET": "/elsewhere", "PYTHONPATH": "/p", "AWS_SECRET_ACCESS_KEY": "s",
		"UV_HTTP_RETRIES": "4"} {
		t.Setenv(name, value)
	}
	t.Setenv("SSL_CERT_FILE", "")
	os.Unsetenv("SSL_CERT_FILE")
	index, err := (&Builder{Root: root, Dir: dir}).Build(t.Context())
	if err != nil || !strings.HasSuffix(index.Generators[0].Problem, "requirements.txt: no") {
		t.Fatalf("%+v, %v", index, err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	env := "\n" + string(text)
	for _, want := range []string{"PIP_INDEX_URL=https://mirror.invalid/simple",
		"UV_DEFAULT_INDEX=https://mirror.invalid/simple", "HTTPS_PROXY=http://proxy.invalid:1",
		"UV_FIND_LINKS=/a,/b", "SSL_CERT_FILE=/cert", "UV_HTTP_RETRIES=4", "PIP_RETRIES=4"} {
		if !strings.Contains(env, "\n"+want+"\n") {
			t.Errorf("no %s in %s", want, env)
		}
	}
	for _, unwanted := range []string{"PIP_TARGET=", "PYTHONPATH=", "AWS_"} {
		if strings.Contains(env, "\n"+unwanted) {
			t.Errorf("%s reached the installer", unwanted)
		}
	}
}

func TestNoNetwork(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	realUV(t)
	onlyIndex(t, "http://"+address+"/simple")
	root, dir := bare(t, "tiny-thing==1.0\n"), t.TempDir()
	began := time.Now()
	index, err := (&Builder{Root: root, Dir: dir}).Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := index.Generators[0].Problem
	if !strings.Contains(p, "connect to the network or set PIP_INDEX_URL / PIP_FIND_LINKS, then run again") ||
		!strings.Contains(p, filepath.Join("g", requirements.File)) || strings.Contains(p, "\n") {
		t.Errorf("problem %q", p)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("took %v", took)
	}
	t.Log(p)
}

// onlyIndex has the installers ask one package index and nothing else.
func onlyIndex(t *testing.T, url string) {
	t.Helper()
	t.Setenv("PIP_INDEX_URL", url)
	for _, name := range []string{"PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_EXTRA_INDEX_URL", "PIP_RETRIES"} {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
	t.Setenv("PIP_CONFIG_FILE", os.DevNull)
}

// An index that cannot answer now is one that cannot be reached; one that answers
// that there is no such package makes the requirement one that cannot be installed.
func TestBrokenIndex(t *testing.T) {
	for status, passing := range map[int]bool{503: true, 429: true, 404: false} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
				_ *http.Request) {
				w.WriteHeader(status)
			}))
			defer server.Close()
			realUV(t)
			onlyIndex(t, server.URL)
			index, err := (&Builder{Root: bare(t, "tiny-thing==1.0\n"), Dir: t.TempDir(), Image: true}).Build(t.Context())
			switch {
			case passing && !errors.Is(err, errNoIndex):
				t.Errorf("index %+v, %v", index, err)
			case !passing && (err != nil || !strings.Contains(index.Generators[0].Problem, "tiny-thing")):
				t.Errorf("index %+v, %v", index, err)
			}
		})
	}
}

// What uv prints of an index or an archive's host.
func TestUVCannotFetch(t *testing.T) {
	for out, unreachable := range map[string]bool{
		"error: generator.Request failed after 1 retry in 1.0s\n  cause: Failed to fetch: http://a/simple/six/\n  cause: error sending request for url (http://a/simple/six/)\n  cause: tcp connect error\n": true,
		"  cause: Failed to fetch: http://a/simple/six/\n  cause: HTTP status server error (503 Service Unavailable) for url (http://a/simple/six/)\n":                                                       true,
		"  cause: Failed to fetch: http://a/simple/six/\n  cause: HTTP status client error (429 Too Many Requests) for url (http://a/simple/six/)\n":                                                         true,
		"error: Failed to download `x @ http://a/x.tar.gz`\n  cause: Failed to fetch: http://a/x.tar.gz\n  cause: HTTP status client error (404 Not Found) for url (http://a/x.tar.gz)\n":                    false,
		"error: No solution found when resolving dependencies\n  cause: Because six was not found in the package registry and you require six==1.17.0\n":                                                     false,
	} {
		if err := installError("requirements.txt", out, nil); errors.Is(err, errNoIndex) != unreachable {
			t.Errorf("%s\nbecomes %v", out, err)
		}
	}
}

func TestPythonTooOldOrAbsent(t *testing.T) {
	root, dir, bin := bare(t, ""), t.TempDir(), t.TempDir()
	old := filepath.Join(bin, "python3")
	write(t, old, "#!/bin/sh\nprintf '%s\\0' /usr/bin/python3 3.8.18 m /usr\n")
	if err := os.Chmod(old, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, path, python, want string }{
		{"old", bin, "", "3.8.18, which is too old"}, {"absent", t.TempDir(), "", "no python3 on the PATH"},
		{"asked for, old", os.Getenv("PATH"), old, "3.8.18, which is too old"},
		{"asked for, absent", os.Getenv("PATH"), filepath.Join(bin, "none"), "not a Python"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("PATH", test.path)
			_, err := (&Builder{Root: root, Dir: dir, Python: test.python}).Build(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) ||
				!strings.Contains(err.Error(), "install Python 3.11 or newer") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestSharedPackages has no uv on the PATH: it is brought in with pip from the place that
// pip is told, whatever else is set. What two environments have in common is on the disk
// once, and conflicting pins live side by side.
func TestSharedPackages(t *testing.T) {
	in, err := uv()
	if err != nil {
		t.Fatal(err)
	}
	silence(t)
	root, dir, wheels, bin := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.Symlink(python(t), filepath.Join(bin, "python3")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	pipConf(t, "[global]\ntarget = "+t.TempDir()+"\nno-index = true\nfind-links = "+wheels+"\n")
	// A package as uv's is: one program, here one that starts the real one.
	if err := indextest.Program(wheels, "uv", UVRelease, "#!/bin/sh\nexec '"+in.uv+"' \"$@\"\n"); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"1.0", "2.0"} {
		release(t, wheels, "tiny_thing", version, "value = '"+version+"'\n")
	}
	wheel(t, wheels, "other_thing", "")
	for name, text := range map[string]string{"a": "tiny-thing==2.0\n", "b": "other-thing\ntiny-thing==2.0\n",
		"c": "tiny-thing==1.0\n"} {
		write(t, filepath.Join(root, name, generator.DefaultEntry), preamble)
		write(t, filepath.Join(root, name, requirements.File), text)
	}
	index, err := (&Builder{Root: root, Dir: dir, Progress: func(line string) { t.Log(line) }}).Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := func(i int) os.FileInfo {
		g := index.Generators[i]
		found, _ := filepath.Glob(filepath.Join(dir, "environments", g.Environment, "lib", "python3*", "site-packages",
			"tiny_thing.py"))
		if g.Problem != "" || len(found) != 1 {
			t.Fatalf("%s: %q, %v", g.Name, g.Problem, found)
		}
		info, err := os.Stat(found[0])
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	if !os.SameFile(file(0), file(1)) || os.SameFile(file(0), file(2)) {
		t.Errorf("files %v %v %v", file(0), file(1), file(2))
	}
}

// A Python that cannot bring in uv makes no environment, and the error says why.
func TestNoUV(t *testing.T) {
	p, err := findPython(t.Context(), "", "")
	if err != nil {
		t.Skip(err)
	}
	for says, want := range map[string]string{
		"ERROR: No matching distribution found for uv==1": "(No matching distribution found for uv==1): connect to the network",
		"ensurepip is not available":                      "has no ensurepip: install python3-venv or uv " + UVRelease,
	} {
		bin := t.TempDir()
		path := filepath.Join(bin, "python3")
		write(t, path, "#!/bin/sh\ncase \"$1\" in -S) printf '%s\\0' '"+path+"' "+p.Version+" m /;; -I) echo '{}';; *) echo '"+says+
			"'; exit 1;; esac\n")
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", bin+":/usr/bin:/bin")
		_, err := (&Builder{Root: bare(t, "tiny-thing\n"), Dir: t.TempDir(), Image: true}).Build(t.Context())
		if !errors.Is(err, errNoUV) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", says, err)
		}
	}
}
