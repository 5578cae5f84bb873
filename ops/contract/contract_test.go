package contract

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/probe"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment/uvtest"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestMain(m *testing.M) {
	if err := uvtest.Setenv(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

const catalogue = `
pipeline: {extra_args: [--generator, maze]}
wants-rubric: {required: [rubric.txt], videoless: true}
needs-network-declared: {network: true, videoless: true}
asks-network: {domain: other, videoless: true}
`

// cases are generators by name: the program in testdata that each has, the verdict
// and every finding there must be, as "property: part of its text".
var cases = []struct {
	name, program string
	verdict       Verdict
	findings      []string
}{
	// The families.
	{"organisation", "organisation.py", Keeps, nil},
	{"datafactory", "datafactory.py", Notes, []string{"same_seed: its metadata hold the time"}},
	{"pipeline", "pipeline.py", Keeps, nil},
	{"seedless", "seedless.py", Notes, []string{"command_line: it takes no --seed",
		"same_seed: the same command again makes other files in 3 of 3 samples: final_frame.png, first_frame.png, prompt.txt"}},
	{"blender", "faults.py", Fails,
		[]string{"output: environment: a module is missing: ModuleNotFoundError: No module named 'bpy'"}},

	// It makes no samples.
	{"elsewhere", "elsewhere.py", Fails, []string{"command_line: its --help lists no --num-samples"}},
	{"crashes", "faults.py", Fails, []string{"output: crashed: exit status 1: ValueError: no puzzle can be found"}},
	{"hangs", "faults.py", Fails, []string{"output: timed_out:"}},
	{"out-of-memory", "faults.py", Fails, []string{"output: out_of_memory:"}},
	{"no-opencv", "faults.py", Fails,
		[]string{"output: incomplete_output: faults_task/faults_0000 has no ground_truth video"}},
	{"silent", "faults.py", Fails,
		[]string{"output: incomplete_output: no sample below a *_task folder, 3 were asked for"}},
	{"flat", "faults.py", Fails, []string{"output: incomplete_output: no sample below a *_task folder"}},
	{"one-short", "faults.py", Fails, []string{"output: incomplete_output: 2 written of 3 samples asked for"}},
	{"two-domains", "faults.py", Fails, []string{"output: incomplete_output: samples of two domains, faults and others"}},
	{"uneven", "faults.py", Fails, []string{"output: incomplete_output: faults_task/faults_0001 holds"}},
	{"wants-rubric", "faults.py", Fails, []string{"output: incomplete_output: faults_task/faults_0000 has no rubric.txt"}},
	{"full-disk", "faults.py", Fails,
		[]string{"output: corrupt_output: faults_task/faults_0000/ground_truth.mp4: is a truncated MP4"}},
	{"half-pictures", "faults.py", Fails,
		[]string{"output: corrupt_output: faults_task/faults_0000/first_frame.png: is a truncated PNG"}},
	{"links", "faults.py", Fails, []string{"output: unsafe_output: faults_task/faults_0000/extra.png is a symbolic link"}},
	{"resolves", "faults.py", Fails, []string{"network: environment: the generator wanted the network"}},

	// It makes some.
	{"unlucky", "faults.py", Notes, []string{"unlucky_seeds: (crashed: exit status 1: ValueError: no puzzle for seed"}},
	{"capped", "faults.py", Breaks,
		[]string{"twice: it makes 3 samples, but not 6: incomplete_output: 5 written of 6 samples asked for"}},
	{"exhausted", "faults.py", Breaks,
		[]string{"twice: it makes 3 samples, but not 6: crashed: exit status 1: RuntimeError: all 5 puzzles are used"}},
	{"works-once", "faults.py", Breaks, []string{"same_seed: the same command again fails: crashed",
		"output: one chunk of two fails: crashed", "twice: it makes 3 samples, but not 6: crashed",
		"watching: without network and /dev/shm, and watched, it fails: crashed"}},
	{"few-puzzles", "faults.py", Notes,
		[]string{"other_seed: 3 of 3 samples of another seed are the same puzzles: it may have few",
			"other_seed: of 3 samples of one run only 2 are distinct"}},
	{"videoless", "faults.py", Keeps, nil},
	{"movies", "faults.py", Keeps, nil},
	{"unseeded", "faults.py", Breaks,
		[]string{"same_seed: makes other files in 3 of 3 samples: final_frame.png, first_frame.png, prompt.txt"}},
	{"half-seeded", "faults.py", Breaks, []string{"same_seed: makes other files in 3 of 3 samples: final_frame.png"}},
	{"same-for-all", "faults.py", Breaks,
		[]string{"other_seed: another seed makes the same samples: its chunks come out alike"}},
	{"alike", "seedless.py", Breaks, []string{"command_line: it takes no --seed",
		"other_seed: its chunks come out alike: it has no seed"}},
	{"hash-alone", "faults.py", Breaks,
		[]string{"hash_seed: depends on PYTHONHASHSEED, which a worker sets to the seed, and on --seed not at all"}},
	{"hash-too", "faults.py", Notes, []string{"hash_seed: depends on PYTHONHASHSEED too"}},
	{"mixes", "faults.py", Notes, []string{"prefix: of 6 samples the first 3 are others"}},
	{"own-folder", "faults.py", Breaks, []string{"own_folder: it writes into its own folder: cache/shapes.bin"}},
	{"own-files", "faults.py", Breaks, []string{"own_folder: it wants to write to its own files: state.txt"}},
	{"home", "faults.py", Notes, []string{"home: it writes into the home folder: .cache/shapes/list.json"}},
	{"outside", "faults.py", Breaks,
		[]string{"outside: it wants to write outside its folders, where a worker does not let it: /usr/share/shapes.bin, /var/shapes.bin"}},
	{"needs-network-declared", "faults.py", Notes, []string{"network: it needs the network ("}},
	{"asks-network", "faults.py", Notes, []string{"output: the domain of its samples is faults, and other in catalog.yaml",
		"network: it asks for the network (192.0.2.1:9), and does without"}},
	{"needs-network", "faults.py", Breaks, []string{"network: it needs the network ("}},
	{"processes", "faults.py", Breaks,
		[]string{"shared_memory: it needs shared memory (a multiprocessing lock or queue): without, it fails: crashed"}},
	{"segments", "faults.py", Breaks, []string{"shared_memory: it needs shared memory (multiprocessing.shared_memory)"}},
	{"tries-processes", "faults.py", Notes,
		[]string{"shared_memory: it asks for shared memory (a multiprocessing lock or queue), and does without"}},
	{"fonts", "faults.py", Notes,
		[]string{"fonts: it draws with fonts of the machine: kit.ttf; fonts that it looks for are not here: Helvetica.ttc"}},
	{"pillow-fonts", "faults.py", Notes,
		[]string{"fonts: it draws with fonts of the machine: kit.ttf; fonts that it looks for are not here: arial.ttf"}},
	{"notices", "faults.py", Notes,
		[]string{"watching: without network and /dev/shm, and watched, it makes other files: final_frame.png, first_frame.png, prompt.txt"}},
	{"crowded", "faults.py", Keeps, nil},
	{"pipes", "faults.py", Notes, []string{"watching: it could not be watched: watch/seen is no plain file"}},
	{"leads-out", "faults.py", Notes,
		[]string{"watching: it could not be watched: openat watch/seen: path escapes from parent"}},
	{"long-lines", "faults.py", Keeps, nil},
	{"frames", "faults.py", Keeps, nil},
	{"huge-pictures", "faults.py", Breaks,
		[]string{"decodable: 3 pictures or videos cannot be decoded, such as faults_00000000/first_frame.png: has 65535 by 65535 pixels, more than are decoded"}},
	{"leaves-much", "faults.py", Keeps, nil},
	{"hoards", "faults.py", Keeps, nil},
	{"misjudged", "faults.py", Notes, []string{
		"judge: its own judge does not give all points to 1 of 3 samples: faults_00000001 has 65.0 % (frame 7: it jumps)"}},
}

// folder makes the generators of the cases.
func folder(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.FromSlash(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	entries := catalogue
	for _, c := range cases {
		put(c.name+"/examples/generate.py", read("testdata/"+c.program))
		videos := []string{"no-opencv", "full-disk", "movies", "frames", "misjudged"}
		if c.program == "faults.py" && !slices.Contains(videos, c.name) && !strings.Contains(catalogue, "\n"+c.name+":") {
			entries += c.name + ": {videoless: true}\n"
		}
	}
	put("undecodable/examples/generate.py", read("testdata/faults.py"))
	put("catalog.yaml", entries)
	put("kit/__init__.py", read("testdata/kit/__init__.py"))
	put("misjudged/eval/verify.py", read("testdata/verify.py"))
	put("kit/kit.ttf", "a font")
	put("kit/video.mp4", video3(t, read("../local/testdata/generate.py")))
	put("pillow-fonts/examples/PIL/ImageFont.py", read("testdata/imagefont.py"))
	put("pillow-fonts/mine.ttf", "a font")
	put("unlucky/unlucky.txt", fmt.Sprint(task.Seed("unlucky", 42, 3, 0, 0)))
	return root
}

// video3 is the video that the generator of the local stack's tests carries.
func video3(t *testing.T, program string) string {
	t.Helper()
	found := regexp.MustCompile(`(?s)a2b_base64\(\s*"""(.*?)"""`).FindStringSubmatch(program)
	if found == nil {
		t.Fatal("there is no video in it")
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(found[1]), ""))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// serve answers on an address of this machine that is not its loopback, and
// returns it; "" if there is none.
func serve(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		ip, ok := a.(*net.IPNet)
		if !ok || ip.IP.IsLoopback() || ip.IP.To4() == nil {
			continue
		}
		l, err := net.Listen("tcp4", net.JoinHostPort(ip.IP.String(), "0"))
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte("red"))
				_ = c.Close()
			}
		}()
		host, port, _ := net.SplitHostPort(l.Addr().String())
		return host + " " + port
	}
	return ""
}

// required skips a test that needs what this machine has not, and fails in CI.
func required(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("there is no %s", what)
	}
	t.Skipf("there is no %s", what)
}

// Every family of generators and everything that they do wrong is named, and
// nothing else is.
func TestCheck(t *testing.T) {
	root := folder(t)
	server := serve(t)
	for _, name := range []string{"needs-network", "needs-network-declared"} {
		if err := os.WriteFile(filepath.Join(root, name, "server.txt"), []byte(server), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	index, err := (&environment.Builder{Root: root, Dir: t.TempDir()}).Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	t.Cleanup(func() {
		if left, _ := os.ReadDir(scratch); len(left) > 0 {
			t.Errorf("%s is left of the checks", left[0].Name())
		}
	})
	for _, want := range cases {
		t.Run(want.name, func(t *testing.T) {
			t.Parallel()
			g, err := index.Find(want.name)
			if err != nil {
				t.Fatal(err)
			}
			c := Checker{Samples: 3, Seed: 42, Scratch: scratch, Runs: &probe.Runner{Guard: &generator.Guard{}}}
			switch want.name {
			case "hangs":
				c.Runs.Timeout = 2 * time.Second
			case "needs-network", "needs-network-declared":
				if server == "" {
					required(t, "network but the loopback")
				}
			}
			got, err := c.Check(t.Context(), g)
			if err != nil {
				t.Fatal(err)
			}
			if s := got.Seen; got.Network == nil && len(s.Network) > 0 || got.Shm == nil && len(s.Shared) > 0 {
				required(t, "way to take network and shared memory from a process")
			}
			var texts []string
			for _, f := range got.Findings {
				if f.Property == Decodable && f.Level == Notes {
					continue // this machine may have no decoder; TestDecode has one
				}
				texts = append(texts, fmt.Sprintf("%s: %s", f.Property, f.Text))
			}
			if got.Verdict != want.verdict && (want.verdict != Keeps || len(texts) > 0) {
				t.Errorf("it %s, want that it %s", got.Verdict, want.verdict)
			}
			for i, finding := range want.findings {
				property, part, _ := strings.Cut(finding, ": ")
				if i >= len(texts) || !strings.HasPrefix(texts[i], property+": ") || !strings.Contains(texts[i], part) {
					t.Errorf("finding %d is not %q", i, finding)
				}
			}
			if len(texts) != len(want.findings) || t.Failed() {
				t.Errorf("found %q, want %q", texts, want.findings)
			}
			details(t, got)
		})
	}
}

// details checks what some of the reports say beyond findings.
func details(t *testing.T, r *Report) {
	t.Helper()
	if _, err := json.Marshal(r); err != nil {
		t.Error(err) // a cost that is no number
	}
	if r.Verdict == Fails {
		if r.Cost != nil {
			t.Error("it costs something, and makes nothing")
		}
		if r.Generator == "crashes" && !strings.Contains(r.Stderr, "some progress") {
			t.Errorf("stderr is %q", r.Stderr)
		}
		return
	}
	c := r.Cost
	if c == nil || c.StartCPU+c.SampleCPU <= 0 || c.StartWall+c.SampleWall <= 0 || c.SampleFiles < 3 ||
		c.SampleBytes < 100 || c.PeakRSS < 1<<20 || c.Machine == "" {
		t.Errorf("the cost is %+v", c)
	}
	switch r.Generator {
	case "datafactory":
		if r.Flags.Output != "--output-dir" || r.Flags.NoVideo != "--no-video" ||
			!slices.Contains(r.Files, "metadata.json") || !slices.Equal(r.Seen.Programs, []string{"git"}) || r.LeftInTmp != 3 ||
			!r.Times {
			t.Errorf("got %+v", r)
		}
	case "pipeline":
		if !r.Flags.StartIndex || !slices.Contains(r.Files, "first_video.mp4") || c.SampleFiles != 6 {
			t.Errorf("got %+v", r)
		}
	case "hoards":
		if each := c.SampleRSS >> 20; each < 25 || each > 40 {
			t.Errorf("each sample takes %d MiB, want 32", each)
		}
	case "leaves-much":
		if r.LeftInTmp != 5 {
			t.Errorf("%d files are left in its temporary folder, want 5", r.LeftInTmp)
		}
	case "unseeded", "half-seeded":
		if *r.SameSeed || r.HashSeed != nil || r.Prefix != nil {
			t.Errorf("got %+v", r)
		}
	case "organisation":
		if !*r.SameSeed || !*r.OtherSeed || *r.HashSeed || !*r.Prefix || r.Times {
			t.Errorf("got %+v", r)
		}
	case "pillow-fonts":
		if len(r.Seen.OwnFonts) != 1 {
			t.Errorf("its own font is not among %+v", r.Seen)
		}
	}
}

// organisation is a generator that keeps the contract, with its environment.
func organisation(t *testing.T) *generator.Generator {
	t.Helper()
	index, err := (&environment.Builder{Root: folder(t), Dir: t.TempDir(), Names: []string{"organisation"}}).Build(
		t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g, err := index.Find("organisation")
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// What was made for one experiment is gone before the next: a check takes little
// more of the disk than two runs.
func TestDisk(t *testing.T) {
	g, scratch := organisation(t), t.TempDir()
	c := Checker{Samples: 1, Seed: 42, Scratch: scratch, Runs: &probe.Runner{}, Progress: func(_ string, done int) {
		if runs, _ := filepath.Glob(filepath.Join(scratch, "*", "[0-9]*")); len(runs) < 1 || len(runs) > 2 {
			t.Errorf("after step %d there are %d runs", done, len(runs))
		}
	}}
	if r, err := c.Check(t.Context(), g); err != nil || r.SameSeed == nil || !*r.SameSeed {
		t.Errorf("%+v, %v", r, err)
	}
}

// An interpreter that does not look at PYTHONPATH cannot be watched, and the report
// does not pretend that it was.
func TestUnwatched(t *testing.T) {
	const system = "/usr/bin/python3" // which the sandbox lets everybody run
	if _, err := os.Stat(system); err != nil {
		required(t, system)
	}
	g := organisation(t)
	deaf := filepath.Join(filepath.Dir(g.Python), "deaf")
	if err := os.WriteFile(deaf, []byte("#!/bin/sh\nexec "+system+" -E -X utf8 \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	g.Python = deaf
	r, err := (&Checker{Samples: 1, Seed: 42, Scratch: t.TempDir(), Runs: &probe.Runner{}}).Check(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Property == Watching && strings.HasPrefix(f.Text, "it could not be watched")
	}) {
		t.Errorf("it %s: %+v", r.Verdict, r.Findings)
	}
}

// Every property that a finding can have is one that some case has, so that none
// is added without a generator that shows it.
func TestPropertiesAreShown(t *testing.T) {
	shown := map[Property]bool{Decodable: true} // TestDecode
	for _, c := range cases {
		for _, f := range c.findings {
			property, _, _ := strings.Cut(f, ":")
			shown[Property(property)] = true
		}
	}
	text, err := os.ReadFile("contract.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Property\s+= "(\w+)"`).FindAllStringSubmatch(string(text), -1) {
		if !shown[Property(m[1])] {
			t.Errorf("no generator shows %s; those that are shown: %v", m[1], slices.Sorted(maps.Keys(shown)))
		}
	}
}
