package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/flags"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment/uvtest"
)

// viewer is a browser's session with ops ui.
type viewer struct {
	t      *testing.T
	client http.Client
	origin string
	last   string // event that was followed
}

// startUI starts ops ui in the folder of a stack and returns its address.
func startUI(t *testing.T, dir string, args ...string) (address string) {
	t.Helper()
	cmd := inFolder(t, dir, append([]string{"ui", "--json"}, args...)...)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	var at struct{ Address string }
	must(t, json.NewDecoder(out).Decode(&at))
	return at.Address
}

// openedAddress waits for the address that --open hands to the system.
func openedAddress(t *testing.T, file string) string {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if text, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(text))
		}
		if time.Now().After(limit) {
			t.Fatal("no browser was opened")
		}
	}
}

// newViewer opens an address with a token.
func newViewer(t *testing.T, address string) *viewer {
	t.Helper()
	jar, err := cookiejar.New(nil)
	must(t, err)
	at, err := url.Parse(address)
	must(t, err)
	v := &viewer{t: t, client: http.Client{Jar: jar}, origin: "http://" + at.Host}
	v.get("/?" + at.RawQuery)
	return v
}

func (v *viewer) do(r *http.Request) (status int, text string, err error) {
	answer, err := v.client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), err
}

// get reads a page, as text without entities.
func (v *viewer) get(path string) string {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), http.MethodGet, v.origin+path, nil)
	must(v.t, err)
	r.Header.Set("Accept", "text/html")
	status, text, err := v.do(r)
	if must(v.t, err); status != http.StatusOK {
		v.t.Fatalf("GET %s: %d: %s", path, status, text)
	}
	return html.UnescapeString(text)
}

// send sends a form as a page of an origin does.
func (v *viewer) send(origin, path string, pairs ...string) (status int, text string, err error) {
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	r, err := http.NewRequestWithContext(v.t.Context(), http.MethodPost, v.origin+path, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Origin", origin)
	return v.do(r)
}

// post sends a form of a page and returns the page that follows.
func (v *viewer) post(path string, pairs ...string) string {
	v.t.Helper()
	status, text, err := v.send(v.origin, path, pairs...)
	if must(v.t, err); status != http.StatusOK {
		v.t.Fatalf("POST %s: %d: %s", path, status, text)
	}
	return html.UnescapeString(text)
}

// follow reads events until one of them is enough, or the last one has come, and returns how that ended.
func (v *viewer) follow(path string, enough func(html string) bool) (end string) {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), http.MethodGet, v.origin+path, nil)
	must(v.t, err)
	answer, err := v.client.Do(r)
	must(v.t, err)
	defer answer.Body.Close()
	if answer.Header.Get("Content-Type") != "text/event-stream" {
		text, _ := io.ReadAll(answer.Body)
		v.t.Fatalf("GET %s: %s: %s", path, answer.Status, text)
	}
	name, id, data := "", "", ""
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case field == "event":
			name = value
		case field == "id":
			id = value
		case field == "data":
			data += value + "\n"
		case field == "" && name == "end":
			v.last = html.UnescapeString(data)
			return id
		case field == "" && name != "":
			if enough(html.UnescapeString(data)) {
				return ""
			}
			name, id, data = "", "", ""
		}
	}
	v.t.Fatalf("the events of %s ended without a last one: %v: %s", path, lines.Err(), data)
	return ""
}

func never(string) bool { return false }

// contains reports what a page lacks.
func contains(t *testing.T, page string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(page, want) {
			t.Errorf("there is no %q in\n%s", want, page)
		}
	}
}

// sums are the SHA-256 of the files below a folder, and samples the folders of those that differ.
func sums(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	list := map[string][32]byte{}
	must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		list[name] = sha256.Sum256(text)
		return err
	}))
	return list
}

func samplesThatDiffer(a, b map[string][32]byte) (list []string) {
	for name := range b {
		if a[name] != b[name] {
			list = append(list, filepath.Dir(name))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// TestUIOperates uses the pages of ops ui as a browser does, on a local stack: a run is paused, goes on and ends; a task
// that failed for good is replayed and completes it; two people flag samples at once, and the printed command replaces
// these and nothing else.
func TestUIOperates(t *testing.T) {
	must(t, uvtest.Setenv())
	t.Setenv(stack.EnvRetryDelays, "0.01")
	dir := t.TempDir()
	logsOf(t, dir)
	source, err := os.ReadFile(filepath.Join("local", "testdata", "generate.py"))
	must(t, err)
	generators := filepath.Join(dir, "generators")
	makeGenerators(t, generators, "lights", "crash")
	for _, name := range []string{"lights", "crash"} {
		must(t, os.WriteFile(filepath.Join(generators, name, "examples", "generate.py"), source, 0o600))
	}
	outputs, beside := startStack(t, dir)
	contains(t, newViewer(t, beside).get("/run"), "has no run yet") // the address that local up prints
	address := startUI(t, dir)
	v := newViewer(t, address)
	contains(t, v.get("/run"), "has no run yet", "ops --stack local submit --all --samples 100")
	contains(t, v.get("/failures"), "No task is in the dead letter queue")
	contains(t, v.get("/flags"), "Nothing is flagged")

	// A pause lasts: tasks that are sent now wait.
	contains(t, v.post("/run/delivery", "do", "pause", "back", "/run"), "paused", "ops --stack local resume",
		`data-copy="ops --stack local pause"`)
	if out, err := inFolder(t, dir, "submit", "--all", "--samples", "8", "--chunk", "4", "--batch", "4", "--run",
		"0-first").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	polls := 0
	v.follow("/run/events?run=0-first", func(page string) bool {
		contains(t, page, "0 of 16 samples", `<div class="number">4</div>waiting in the queue`,
			`<div class="number">0</div>tasks with workers`)
		polls++
		return polls == 2
	})

	// A page of another origin changes nothing, with the cookie as well.
	status, _, err := v.send("http://127.0.0.1:1", "/run/delivery", "do", "resume")
	if must(t, err); status != http.StatusForbidden {
		t.Errorf("a page of another origin resumes: %d", status)
	}
	contains(t, v.get("/run"), "paused")
	opened := filepath.Join(dir, "opened")
	bin := filepath.Join(dir, "bin")
	must(t, os.MkdirAll(bin, 0o755))
	must(t, os.WriteFile(filepath.Join(bin, "xdg-open"), []byte("#!/bin/sh\necho \"$1\" > "+opened+".part && mv "+opened+
		".part "+opened+"\n"), 0o755))
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	address2 := startUI(t, dir, "--read-only", "--open")
	contains(t, newViewer(t, openedAddress(t, opened)).get("/run"), "paused") // with a token that is good for once
	reader := newViewer(t, address2)
	if page := reader.get("/run"); !strings.Contains(page, "paused") || strings.Contains(page, "Resume") {
		t.Errorf("a reader may resume: %s", page)
	}
	if status, text, err := reader.send(reader.origin, "/run/delivery", "do", "resume"); err != nil ||
		status != http.StatusForbidden || !strings.Contains(text, "--read-only") {
		t.Errorf("a reader resumes: %d, %s, %v", status, text, err)
	}

	contains(t, v.post("/run/delivery", "do", "resume", "back", "/run?run=0-first"), "delivering",
		"ops --stack local pause")
	watched := func(string) bool { v.get("/failures"); return false } // as empty, until a moment before the end
	if end := v.follow("/run/events?run=0-first", watched); end != "incomplete" {
		t.Errorf("the run of a generator that crashes ends as %q", end)
	}
	contains(t, v.last, "8 of 16 samples", "Samples a minute", "8 in all", `<rect x="`, "crash</td>", "time left", "USD",
		"in the last two minutes", "Failed attempts by cause", "<td>crashed</td>", `<rect class="bad" width="100.0"`,
		"ops --stack local repair --run 0-first")

	// One of the two failed tasks is replayed. A dry run sends nothing.
	contains(t, v.get("/failures"), "2 tasks failed for good", "cause=crashed", "no puzzle for seed")
	filtered := v.get("/failures?cause=crashed&generator=crash")
	contains(t, filtered, "ops --stack local dlq list --cause crashed --generator crash")
	ids := regexp.MustCompile(`name="id" value="([^"]+)"`).FindAllStringSubmatch(filtered, -1)
	if len(ids) != 2 {
		t.Fatalf("there are %d tasks: %s", len(ids), filtered)
	}
	contains(t, v.get("/failures/task/"+ids[0][1]), `"type":"crash"`, "ValueError", "--num-samples 4", "Run it by hand",
		"ops --stack local dlq show "+ids[0][1])
	must(t, os.WriteFile(filepath.Join(generators, "crash", "examples", "generate.py"),
		bytes.Replace(source, []byte("fault = mood"), []byte(`fault = "good"  # mood`), 1), 0o600))
	dry := v.post("/failures/replay", "do", "dry run", "which", "selected", "id", ids[0][1], "seeds", "keep")
	contains(t, dry, "1 task would be sent again; nothing was sent", `"type":"crash"`, "Send 1 task again",
		"ops --stack local dlq replay --id "+ids[0][1]+" --keep-seed")
	contains(t, v.post("/failures/replay", "do", "dry run", "which", "all", "since", "0s"), "0 tasks would be sent again",
		"--since")
	contains(t, v.post("/failures/replay", "do", "dry run", "which", "all", "in", "v2", "since", "1h"),
		"0 tasks would be sent again", "ops --stack local dlq replay --dataset v2 --since")
	contains(t, v.post("/failures/replay", "do", "dry run", "which", "all", "in", "v1", "since", "1h", "max", "1", "rate",
		"5",
		"chunk", "2", "generator", "crash", "cause", "crashed", "seeds", "fresh"), "1 task would be sent again",
		"--fresh-seed",
		"--max 1 --chunk 2 --rate 5")
	for _, wrong := range [][]string{{"which", "selected"}, {"which", "all", "chunk", "x"},
		{"which", "all", "cause", "bad"},
		{"which", "all", "since", "yesterday"}, {"which", "all", "in", "../x"},
		{"which", "all", "rate", "NaN"}, {"id", ids[0][1]}} {
		if status, _, err := v.send(v.origin, "/failures/replay", append(wrong, "do", "send")...); err != nil ||
			status != http.StatusBadRequest {
			t.Errorf("%v: status %d, %v", wrong, status, err)
		}
	}
	if out, err := inFolder(t, dir, "dlq", "count", "--json").Output(); err != nil ||
		!bytes.Contains(out, []byte(`"waiting": 2`)) {
		t.Errorf("%s, %v", out, err)
	}
	v.post("/failures/replay", "do", "send", "which", "selected", "id", ids[0][1], "seeds", "keep")
	if end := v.follow("/failures/replay/events", never); end != "done" {
		t.Errorf("the replay ended as %q", end)
	}
	contains(t, v.get("/failures"), "1 task failed for good", "The last replay")
	// The other one, by its cause.
	v.post("/failures/replay", "do", "send", "which", "all", "cause", "crashed", "seeds", "")
	if end := v.follow("/failures/replay/events", never); end != "done" {
		t.Errorf("the replay ended as %q", end)
	}
	if end := v.follow("/run/events?run=0-first", never); end != "complete" {
		t.Errorf("the run ended as %q", end)
	}
	contains(t, v.last, "16 of 16 samples", "Every sample of the run is committed")

	flagAndReplace(t, dir, filepath.Join(dir, ".local", "s3", outputs.BucketName, "data", "v1"), address)
}

// flagAndReplace has two people flag samples at once, and carries the printed command out.
func flagAndReplace(t *testing.T, dir, data, address string) {
	t.Helper()
	before := sums(t, data)
	var group errgroup.Group
	for _, name := range []string{"ada", "bob"} {
		person := newViewer(t, address)
		contains(t, person.post("/flags/name", "name", name), fmt.Sprintf("value=%q", name))
		for i := range 4 {
			group.Go(func() error {
				status, text, err := person.send(person.origin, "/flags", "do", "add", "reason", "=<b>dark", "sample",
					fmt.Sprintf("lights:%d", i), "sample", "crash:7", "back", "//evil.example/")
				if err == nil && status != http.StatusOK {
					err = errors.New(text)
				}
				return err
			})
		}
	}
	must(t, group.Wait())
	v := newViewer(t, address)
	want := []string{"crash_00000007 ada =<b>dark open", "crash_00000007 bob =<b>dark open"}
	for i := range 4 {
		for _, name := range []string{"ada", "bob"} {
			want = append(want, fmt.Sprintf("lights_%08d %s =<b>dark open", i, name))
		}
	}
	var got []string
	var list []flags.Listed
	must(t, json.Unmarshal([]byte(v.get("/flags.json")), &list))
	for _, f := range list {
		got = append(got, fmt.Sprintf("%s %s %s %s", f.Sample, f.By, f.Reason, f.State))
	}
	if !slices.Equal(got, want) {
		t.Errorf("flagged: %q", got)
	}
	contains(t, v.get("/flags.csv"), "crash,7,crash_00000007,open,ada,", ",'=<b>dark\n")
	if status, text, err := v.send(v.origin, "/flags", "do", "add", "sample", "lights:8"); err != nil ||
		status != http.StatusBadRequest || !strings.Contains(text, "not committed: 8") {
		t.Errorf("flagged what is not there: %d, %s, %v", status, text, err)
	}
	contains(t, v.post("/flags", "do", "remove", "sample", "lights:3"), "8 flags",
		`data-copy="ops --stack local flags remove lights 3"`)

	page := v.post("/flags/plan")
	contains(t, page, "The plan for 4 samples is made", "export --as parquet --to curated --without flagged")
	command := regexp.MustCompile(`data-copy="(ops [^"]* repair --plan [^"]*)"`).FindStringSubmatch(page)
	if command == nil {
		t.Fatal("no command: " + page)
	}
	carry := exec.CommandContext(t.Context(), "sh", "-c", command[1])
	carry.Dir, carry.Env = dir, inFolder(t, dir).Env
	if out, err := carry.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command[1], err, out)
	}
	newest := regexp.MustCompile(`<option selected>([^<]+)`).FindStringSubmatch(v.get("/run"))
	if newest == nil {
		t.Fatal("the run of the repair is not shown first")
	}
	if end := v.follow("/run/events?run="+newest[1], never); end != "complete" {
		t.Errorf("the repair ended as %q", end)
	}
	changed := samplesThatDiffer(before, sums(t, data))
	if !slices.Equal(changed, []string{"crash/crash_00000007", "lights/lights_00000000", "lights/lights_00000001",
		"lights/lights_00000002"}) || !maps.EqualFunc(before, sums(t, data), func(_, _ [32]byte) bool { return true }) {
		t.Errorf("changed: %v", changed)
	}
	out, err := inFolder(t, dir, "flags", "list", "--json").Output()
	must(t, err)
	if n := bytes.Count(out, []byte(`"state": "resolved"`)); n != 8 || bytes.Contains(out, []byte(`"open"`)) {
		t.Errorf("after the repair: %s", out)
	}
	contains(t, v.post("/flags", "do", "remove resolved"), "Nothing is flagged")
}
