package sample

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// collectMetadata collects one sample, number 7 of the domain maze, with this metadata.json.
func collectMetadata(t *testing.T, text string) (after, fingerprint string, err error) {
	t.Helper()
	dir := output(t, 1)
	write(t, dir, map[string][]byte{"maze_task/maze_0/metadata.json": []byte(text)})
	_, samples, err := Collect(dir, 1, places(7, 1), Rules{})
	if err != nil {
		return "", "", err
	}
	return read(t, filepath.Join(dir, "maze_task/maze_0/metadata.json")), samples[0].Fingerprint, nil
}

// metadata.json follows the new id and is otherwise the generator's own, byte for byte.
func TestMetadata(t *testing.T) {
	for _, test := range []struct{ before, after string }{
		{`{"task_id": "maze_1", "n": 1.50, "big": 12345678901234567890}`,
			`{"task_id": "maze_00000007", "n": 1.50, "big": 12345678901234567890}`},
		{`{"inner": {"task_id": 1}, "task_id":null }`, `{"inner": {"task_id": 1}, "task_id":"maze_00000007" }`},
		{`{"inner": {"task_id": 1}}`, `{"inner": {"task_id": 1}}`},
		{`["task_id", 1]`, `["task_id", 1]`},
		{` [ {"task_id":0 } , {"x":[{"task_id":1}]}, [{"task_id":2}]] `,
			` [ {"task_id":"maze_00000007" } , {"x":[{"task_id":1}]}, [{"task_id":2}]] `},
		{`{"a": NaN, "task_id": -Infinity, "b": Infinity}`, `{"a": NaN, "task_id": "maze_00000007", "b": Infinity}`},
		{`{"task_id": 1, "\u0074ask_id": {"a": [1, {}]} , "task_id": []}`,
			`{"task_id": "maze_00000007", "\u0074ask_id": "maze_00000007" , "task_id": "maze_00000007"}`},
		{"\ufeff{\"task_id\": 1}", "\ufeff{\"task_id\": \"maze_00000007\"}"},
		{`{"a": "\ud800", "task_id": "\ud83d\ude00"}`, `{"a": "\ud800", "task_id": "maze_00000007"}`},
		{"{\"a\": \"\xed\xa0\x80\", \"task_id\": 1}", "{\"a\": \"\xed\xa0\x80\", \"task_id\": \"maze_00000007\"}"},
		{`{"pad": "` + strings.Repeat("x", 2<<20) + `", "task_id": 1}`, `{"pad": "` + strings.Repeat("x", 2<<20) +
			`", "task_id": "maze_00000007"}`},
		{"\xff\xfe{\x00\"\x00t\x00a\x00s\x00k\x00_\x00i\x00d\x00\"\x00:\x001\x00}\x00",
			"\xff\xfe{\x00\"\x00t\x00a\x00s\x00k\x00_\x00i\x00d\x00\"\x00:\x00\"\x00m\x00a\x00z\x00e\x00_\x000\x000\x000\x000\x000\x000\x000\x007\x00\"\x00}\x00"},
		{"0", "0"}, {`""`, `""`}, {"-0.5e+10", "-0.5e+10"}, {" {} ", " {} "}, {"null", "null"},
	} {
		got, _, err := collectMetadata(t, test.before)
		if err != nil || got != test.after {
			t.Errorf("%.80q became %.80q, %v; want %.80q", test.before, got, err, test.after)
		}
	}
}

// What no reader takes is corrupt output, by name and reason.
func TestMetadataRefused(t *testing.T) {
	for text, reason := range map[string]string{
		"no JSON": "at byte", `{"task_id": "cut`: "cut off", `{"a": 1,}`: "'}' stands where it cannot", `[1,]`: "']' stands",
		"{'a': 1}": "stands", `{"a" 1}`: "stands", `{} {}`: "stands", `[1}`: "stands", "01": "begins with 0", "1.": "cut off",
		"-":  "cut off",
		"+1": "stands", "Nan": "stands", "{\"a\": \"\n\"}": "control character", "{\"a\": \"\xe9\"}": "not UTF-8",
		`"\u12g4"`: "stands", `"\x"`: "stands",
		"\xff\xfe{\x00}": "within a character", " ": "cut off", strings.Repeat("[", maxDepth+1): "lie in each other",
	} {
		_, _, err := collectMetadata(t, text)
		var refused *Error
		if !errors.As(err, &refused) || refused.Cause != task.CorruptOutput ||
			!strings.Contains(refused.Detail, "maze_task/maze_0/metadata.json is no JSON") ||
			!strings.Contains(refused.Detail, reason) {
			t.Errorf("%.80q: %v; want %q", text, err, reason)
		}
	}
}

// A param_hash counts whatever stands beside it, a number as it is written.
func TestParamHash(t *testing.T) {
	long := strings.Repeat("x", 2<<20)
	for text, want := range map[string]string{
		`{"param_hash": "a\u0062c", "x": NaN}`:         "abc",
		`{"pad": "` + long + `", "param_hash": "abc"}`: "abc",
		`{"param_hash": -12345678901234567890123}`:     "-12345678901234567890123",
		`{"param_hash": 1.50}`:                         "1.50",
		`{"param_hash": "old", "param_hash": "new"}`:   "new",
		"\ufeff{\"param_hash\": \"\\ud83d\\ude00\"}":   "\U0001F600",
		`[{"param_hash": "one"}]`:                      "one",
		"{\x00\"\x00p\x00a\x00r\x00a\x00m\x00_\x00h\x00a\x00s\x00h\x00\"\x00:\x00\"\x00=\xd8\x00\xde\"\x00}\x00": "\U0001F600",
	} {
		if _, got, err := collectMetadata(t, text); err != nil || got != want {
			t.Errorf("%.60q has the fingerprint %q, %v; want %q", text, got, err, want)
		}
	}
	_, plain, err := collectMetadata(t, `{}`)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, text := range []string{`{"param_hash": NaN}`, `{"param_hash": true}`, `{"param_hash": "a", "param_hash": null}`,
		`{"param_hash": ""}`, `{"x": {"param_hash": "a"}}`} {
		if _, got, err := collectMetadata(t, text); err != nil || got != plain {
			t.Errorf("%s has the fingerprint %q, %v", text, got, err)
		}
	}
	for _, text := range []string{`{"param_hash": "` + long + `"}`, `{"param_hash": "` + long + `y"}`,
		`{"param_hash": "\ud800"}`, `{"param_hash": "\ud801"}`,
		`[{"param_hash": "a"}, {"param_hash": "b"}]`, `[{"param_hash": "b"}, {"param_hash": "a"}]`} {
		_, got, err := collectMetadata(t, text)
		if other, again := seen[got]; err != nil || len(got) != 64 || got == plain || again {
			t.Errorf("%.60s has the fingerprint %q, %v, which %.60s has, too", text, got, err, other)
		}
		seen[got] = text
	}
}

// Python reads what it has written and a worker has numbered, and only the id has
// changed. NaN is read as a word, so that it equals itself.
func TestPythonReadsMetadata(t *testing.T) {
	const common = `
import json, shutil, sys
value = {"nan": float("nan"), "inf": [float("inf"), -float("inf")], "big": 10**400, "f": 1e-7, "task_id": "maze_1",
         "half": "\ud800", "text": "\u00e9\u4e2d\U0001F600\n", "deep": {"task_id": "maze_1"}, "none": None}
shapes = [value, [value, {"task_id": 3}, 5], {"pad": "x" * (3 << 20), **value}]
encodings = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]
cases = [(s, e, a) for s in shapes[:2] for e in encodings for a in (True, False)] + [(shapes[2], "utf-8", False)]
files = [f"{sys.argv[1]}/maze_task/maze_{n}/metadata.json" for n in range(len(cases))]
`
	const cases = 2*7*2 + 1
	dir := output(t, cases)
	python(t, common+`
for (value, encoding, ascii), file in zip(cases, files, strict=True):
    open(file, "wb").write(json.dumps(value, ensure_ascii=ascii, indent=1).encode(encoding, "surrogatepass"))`, dir)
	if _, _, err := Collect(dir, cases, places(7, cases), Rules{FilesVary: true}); err != nil {
		t.Fatal(err)
	}
	python(t, common+`
for n, ((value, _, _), file) in enumerate(zip(cases, files, strict=True)):
    before = json.loads(json.dumps(value), parse_constant=str)
    for item in before if isinstance(before, list) else [before]:
        if isinstance(item, dict): item["task_id"] = f"maze_{7 + n:08d}"
    assert json.load(open(file, "rb"), parse_constant=str) == before, n`, dir)
}

func python(t *testing.T, program string, args ...string) {
	t.Helper()
	out, err := exec.Command("python3", append([]string{"-c", program}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%.2000s", err, out)
	}
}

// A large file takes no more memory than a small one, at any moment.
func TestMetadataMemory(t *testing.T) {
	const items = 10_000
	item := `{"task_id": 1, "pad": [1, 2.5, "` + strings.Repeat("x", 1000) + `"]},`
	held := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before, peak := held(), int64(0)
	n := 0
	text := readerFunc(func(p []byte) (int, error) { // the text is made as it is read
		switch n++; {
		case n == 1:
			return copy(p, "["), nil
		case n <= items+1:
			if n%(items/10) == 0 {
				peak = max(peak, held())
			}
			return copy(p, item), nil
		case n == items+2:
			return copy(p, "0]"), nil
		}
		return 0, io.EOF
	})
	found, err := readMetadata(text, discard{}, "maze_1")
	if took := peak - before; err != nil || found.others != items || took > 1<<17 {
		t.Errorf("%d bytes took %d of memory, %d ids, %v", items*len(item), took, found.others, err)
	}
}

// readerFunc is a reader. Its answers fit into the buffer of whoever reads JSON.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// Rewriting task_id keeps JSON what it was in every other value.
func FuzzTaskID(f *testing.F) {
	f.Add(`{"task_id": "a", "b": [1, {"task_id": 2}]}`)
	f.Add(`{"\u0074ask_id": 1}`)
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "metadata.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, failed := setTaskID(path, "new")
		var before, after map[string]json.RawMessage
		if failed != nil || json.Unmarshal([]byte(text), &before) != nil || before == nil {
			return
		}
		if err := json.Unmarshal([]byte(read(t, path)), &after); err != nil {
			t.Fatalf("%s became %s: %v", text, read(t, path), err)
		}
		if _, there := before["task_id"]; there {
			before["task_id"] = json.RawMessage(`"new"`)
		}
		if !maps.EqualFunc(before, after, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Errorf("%s became %s", text, read(t, path))
		}
	})
}
