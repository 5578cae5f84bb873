package environment

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unicode/utf16"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment/indextest"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/requirements"
)

// uv is the installer of this version, brought in once on a machine.
var uv = sync.OnceValues(func() (installer, error) {
	home, err := os.UserCacheDir()
	if err != nil {
		return installer{}, err
	}
	p, err := usual()
	if err != nil {
		return installer{}, err
	}
	dir := filepath.Join(home, "vm-dataset-pipeline-tests", "generators") // uvtest's
	return newInstaller(context.Background(), dir, p, func(Event) {})
})

// realUV puts the real installer on the PATH, and the interpreter before shims that
// start it, which take longer than it does.
func realUV(t *testing.T) {
	t.Helper()
	in, err := uv()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(in.uv, filepath.Join(bin, "uv")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", strings.Join([]string{bin, filepath.Dir(python(t)), os.Getenv("PATH")},
		string(filepath.ListSeparator)))
}

// pipConf is the user's configuration file of pip, in the place of all others, and
// takes away what the environment says of packages.
func pipConf(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pip.conf")
	write(t, path, text)
	t.Setenv("PIP_CONFIG_FILE", path)
}

// silence takes away what the environment says of packages.
func silence(t *testing.T) {
	t.Helper()
	for _, o := range options {
		for _, name := range append([]string{"PIP_" + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_")),
			"PIP_" + strings.ToUpper(strings.ReplaceAll(o.also, "-", "_"))}, o.variables...) {
			t.Setenv(name, "") // so that it is set again afterwards
			os.Unsetenv(name)
		}
	}
}

// packageIndex serves the packages in a folder over TLS with a certificate that
// nobody knows.
func packageIndex(t *testing.T, dir string) (*httptest.Server, *indextest.Index) {
	t.Helper()
	index := &indextest.Index{Dir: dir}
	server := httptest.NewTLSServer(index)
	t.Cleanup(server.Close)
	return server, index
}

// made builds and returns the generators by name, with a function that runs a line
// of Python in the environment of one.
func made(t *testing.T, root string) (map[string]generator.Generator, func(name, line string) string) {
	t.Helper()
	index, err := (&Builder{Root: root, Dir: t.TempDir()}).Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]generator.Generator{}
	for _, g := range index.Generators {
		all[g.Name] = g
	}
	return all, func(name, line string) string {
		t.Helper()
		if p := all[name].Problem; p != "" {
			return "problem: " + p
		}
		out, err := exec.Command(all[name].Python, "-I", "-c", line).CombinedOutput()
		if err != nil {
			return err.Error() + ": " + string(out)
		}
		return strings.TrimSpace(string(out))
	}
}

const versionOfTiny = "import importlib.metadata as m; print(m.version('tiny-thing'))"

// Packages come from where pip is told to take them, whether one generator or more
// are there and whether uv is on the PATH or not: the best version of all indexes,
// from hosts that are trusted, into the environment.
func TestPipSettings(t *testing.T) {
	old, newer, elsewhere := t.TempDir(), t.TempDir(), t.TempDir()
	release(t, old, "tiny_thing", "1.0", "")
	release(t, old, "other_thing", "1.0", "")
	release(t, newer, "tiny_thing", "2.0", "")
	first, _ := packageIndex(t, old)
	second, _ := packageIndex(t, newer)
	host := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "https://") }
	main := "[global]\nindex-url = " + first.URL + "/simple\ntrusted-host =\n  " + host(first) + "\n  " + host(second) +
		"\n"
	for _, test := range []struct {
		name, conf, requirements string
		both                     bool
		want                     string
	}{
		{name: "target, two generators", conf: main + "target = " + elsewhere + "\n", both: true, want: "1.0"},
		{name: "extra index", conf: main + "extra-index-url = " + second.URL + "/simple\n", want: "2.0"},
		{name: "no index", conf: main + "[install]\nno-index = yes\nfind-links = " + newer + "\n", want: "2.0"},
		{name: "requirements file", conf: "[global]\nindex-url = " + first.URL + "/simple\n",
			requirements: "--index-url " + second.URL + "/simple\n--trusted-host " + host(second) + "\n", want: "2.0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			silence(t)
			realUV(t)
			pipConf(t, test.conf)
			root := bare(t, test.requirements+"tiny-thing\n")
			if test.both {
				write(t, filepath.Join(root, "h", generator.DefaultEntry), preamble)
				write(t, filepath.Join(root, "h", requirements.File), "other-thing\n")
			}
			if _, python := made(t, root); python("g", versionOfTiny) != test.want {
				t.Errorf("version %q, want %s", python("g", versionOfTiny), test.want)
			}
		})
	}
}

// Of the places that name an index the last counts.
func TestPipPrecedence(t *testing.T) {
	silence(t)
	for _, test := range []struct {
		conf, variable, want string
	}{
		{"[global]\nindex-url = a\n", "", "a"},
		{"[install]\nindex-url = b\n[global]\nindex-url = a\n", "", "b"},
		{"[install]\nindex-url = b\n", "PIP_INDEX_URL", "c"},
		{"", "UV_DEFAULT_INDEX", "d"}, // PIP_INDEX_URL is still set
	} {
		pipConf(t, test.conf)
		if test.variable != "" {
			t.Setenv(test.variable, test.want)
		}
		if got, err := pipSettings(t.Context(), python(t)); err != nil || got["index-url"] != test.want {
			t.Errorf("pip.conf %q, %s: the index is %q, %v, want %s", test.conf, test.variable, got, err, test.want)
		}
	}
}

// What is read of pip's files is what pip itself says of them.
func TestPipConfig(t *testing.T) {
	silence(t)
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "own"))
	t.Setenv("XDG_CONFIG_DIRS", filepath.Join(home, "shared")+string(os.PathListSeparator)+filepath.Join(home, "other"))
	t.Setenv("PIP_CONFIG_FILE", "") // so that it is set again afterwards
	named := filepath.Join(home, "named.conf")
	for name, text := range map[string]string{
		"shared/pip": "[global]\nindex-url = shared\ntimeout = 1\nretries = 1\nproxy = 1\npre = 1\nclient-cert = 1\n",
		"other/pip":  "[global]\nindex-url = other\n--timeout = 2\nretries = 2\nproxy = 2\npre = 2\nclient-cert =\n",
		".pip":       "[global]\nINDEX_URL = old%20\ntimeout = 3\nproxy = 3\nretries: 3\n[list]\nformat = json\n",
		"own/pip":    "[install]\ntimeout = 4\n[global]\ntimeout = 5\nfind-links =\n  /a b\n  /c'd\\e\nproxy = 4 ; of it\n",
	} {
		write(t, filepath.Join(home, name, "pip.conf"), text)
	}
	write(t, named, "[global]\nindex-url = named\nextra_index_url = ü\n")
	own := filepath.Join(home, "venv")
	if out, err := exec.Command(python(t), "-m", "venv", "--without-pip", "--system-site-packages",
		own).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	write(t, filepath.Join(own, "pip.conf"), "[global]\nretries = 7\n")
	for _, file := range []string{"", named, os.DevNull, filepath.Join(home, "none")} {
		if os.Setenv("PIP_CONFIG_FILE", file); file == "" {
			os.Unsetenv("PIP_CONFIG_FILE")
		}
		interpreter := filepath.Join(own, "bin", "python")
		out, err := exec.Command(interpreter, "-m", "pip", "config", "list", "--disable-pip-version-check").Output()
		if err != nil && os.Getenv("CI") == "" {
			t.Skip("this Python has no pip")
		}
		says, s := map[string]string{}, settings{"retries": "1"}
		unquote := strings.NewReplacer(`\n`, " ", `\\`, `\`, `\'`, `'`) // what Python's repr has done
		for _, section := range []string{"global", "install"} {
			for _, m := range regexp.MustCompile(`(?m)^(global|install)\.([a-z-]+)=['"](.*)['"]\r?$`).
				FindAllStringSubmatch(string(out), -1) {
				if m[1] == section && m[3] != "" {
					says[m[2]] = unquote.Replace(m[3])
				}
			}
		}
		for _, o := range options {
			s.set(o.name, says[o.also])
			s.set(o.name, says[o.name])
		}
		if got, err := pipSettings(t.Context(), interpreter); err != nil || !maps.Equal(got, s) ||
			file != os.DevNull && len(s) < 5 {
			t.Errorf("PIP_CONFIG_FILE %q:\ngot  %v, %v\nwant %v", file, got, err, s)
		}
	}
	write(t, named, "[global]\nindex-url = a\nindex-url = b\n")
	t.Setenv("PIP_CONFIG_FILE", named)
	_, err := (&Builder{Root: bare(t, "tiny-thing\n"), Dir: t.TempDir(), Image: true}).Build(t.Context())
	if err == nil || !strings.Contains(err.Error(), named) || !strings.Contains(err.Error(), "'index-url'") ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("a file that names an option twice: %v", err)
	}
}

// uv has settings, too, that lead packages elsewhere: an environment is ready when
// what it was made for can be imported from it, and no sooner.
func TestEmptyEnvironment(t *testing.T) {
	wheelhouse(t)
	config := filepath.Join(t.TempDir(), "uv.toml")
	write(t, config, fmt.Sprintf("[pip]\ntarget = %q\n", t.TempDir()))
	t.Setenv("UV_CONFIG_FILE", config)
	all, _ := made(t, bare(t, "tiny-thing\n"))
	if p := all["g"].Problem; p != "import tiny-thing: it was installed, and is not in the environment" {
		t.Errorf("problem %q", p)
	}
}

// backend builds a package without any other, and writes where all of them do.
const backend = `import os, zipfile
def make(folder, files):
    os.makedirs("build", exist_ok=True)
    with zipfile.ZipFile(os.path.join(folder, "own-1.0-py3-none-any.whl"), "w") as z:
        for name, text in files.items():
            z.writestr(name, text)
        z.writestr("own-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: own\nVersion: 1.0\nRequires-Dist: tiny-thing\n")
        z.writestr("own-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr("own-1.0.dist-info/RECORD", "")
    return "own-1.0-py3-none-any.whl"
def build_wheel(folder, config_settings=None, metadata_directory=None):
    return make(folder, {"own.py": open("own.py").read()})
def build_editable(folder, config_settings=None, metadata_directory=None):
    return make(folder, {"own.pth": os.getcwd()})
`

const ownProject = "[project]\nname = \"own\"\nversion = \"1.0\"\ndependencies = [\"tiny-thing\"]\n[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n"

// A generator that requires itself is built from a copy: its clone stays as it was
// fetched, and is not taken for one that somebody works in.
func TestSourceStaysAsItIs(t *testing.T) {
	wheelhouse(t)
	for _, requirement := range []string{"-e .", ".", "-e pkg", "own @ file://DIR/pkg"} {
		t.Run(requirement, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "with $1 space")
			dir := filepath.Join(root, "g")
			pkg := dir
			if strings.Contains(requirement, "pkg") {
				pkg = filepath.Join(dir, "pkg")
			}
			write(t, filepath.Join(dir, generator.DefaultEntry), preamble)
			write(t, filepath.Join(dir, requirements.File),
				strings.ReplaceAll(requirement, "DIR", strings.ReplaceAll(dir, " ", "%20"))+"\n")
			write(t, filepath.Join(pkg, "pyproject.toml"), ownProject)
			write(t, filepath.Join(pkg, "backend.py"), backend)
			write(t, filepath.Join(pkg, "own.py"), "import tiny_thing\nvalue = tiny_thing.value\n")
			git(t, dir, "init", "-q")
			git(t, dir, "add", ".")
			git(t, dir, "commit", "-qm", "x")
			_, python := made(t, root)
			if got := python("g", "import own; print(own.value)"); got != "42" {
				t.Errorf("own.value is %s", got)
			}
			if changes := git(t, dir, "status", "--porcelain", "--ignored"); changes != "" {
				t.Errorf("in the clone: %s", changes)
			}
		})
	}
}

// Notepad and PowerShell write such files, and pip reads them.
func TestEncodings(t *testing.T) {
	wheelhouse(t)
	encode := func(order func(uint16) string) string {
		text := order(0xfeff)
		for _, unit := range utf16.Encode([]rune("tiny-thing==1.0  # größer\r\n-r more.txt\r\n")) {
			text += order(unit)
		}
		return text
	}
	root := t.TempDir()
	for name, text := range map[string]string{
		"little": encode(func(u uint16) string { return string([]byte{byte(u), byte(u >> 8)}) }),
		"big":    encode(func(u uint16) string { return string([]byte{byte(u >> 8), byte(u)}) }),
		"utf8":   "\ufefftiny-thing==1.0\n",
		"none":   "t\x00i\x00n\x00y\x00",
	} {
		write(t, filepath.Join(root, name, generator.DefaultEntry), preamble)
		write(t, filepath.Join(root, name, requirements.File), text)
		write(t, filepath.Join(root, name, "more.txt"), "\xff\xfe")
	}
	all, python := made(t, root)
	for _, name := range []string{"little", "big", "utf8"} {
		if got := python(name, versionOfTiny); got != "1.0" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if p := all["none"].Problem; !strings.Contains(p, "is not text in UTF-8, or in UTF-16 with a byte order mark") {
		t.Errorf("problem %q", p)
	}
}

// A generator without requirements.txt is installed from its pyproject.toml.
func TestProject(t *testing.T) {
	wheelhouse(t)
	root := t.TempDir()
	for name, text := range map[string]string{
		"package":      ownProject,
		"dependencies": "[project]\nname = \"x\"\nversion = \"1\"\ndependencies = [\"Tiny_Thing >= 1\"]\n",
		"tools":        "[tool.ruff]\nline-length = 100\n",
		"broken":       "[project\n",
		"dynamic":      "[project]\nname = \"x\"\ndynamic = [\"dependencies\"]\n",
		"outside":      "[project]\ndependencies = [\"x @ file:///etc/x\"]\n",
	} {
		write(t, filepath.Join(root, name, generator.DefaultEntry), preamble)
		write(t, filepath.Join(root, name, requirements.ProjectFile), text)
	}
	write(t, filepath.Join(root, "package", "backend.py"), backend)
	write(t, filepath.Join(root, "package", "own.py"), "import tiny_thing\nvalue = tiny_thing.value\n")
	write(t, filepath.Join(root, "both", generator.DefaultEntry), preamble)
	write(t, filepath.Join(root, "both", requirements.ProjectFile), "[project\n")
	write(t, filepath.Join(root, "both", requirements.File), "tiny-thing\n")
	_, python := made(t, root)
	for name, want := range map[string]string{"package": "1.0", "dependencies": "1.0", "both": "1.0",
		"tools": "PackageNotFoundError", "broken": "problem: read pyproject.toml: ",
		"dynamic": "problem: its pyproject.toml computes its dependencies", "outside": "outside of the generator's folder"} {
		if got := python(name, versionOfTiny); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := python("package", "import own; print(own.value)"); got != "42" {
		t.Errorf("the package itself: %s", got)
	}
	if _, err := os.Stat(filepath.Join(root, "package", "build")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the package was built in its folder: %v", err)
	}
}
