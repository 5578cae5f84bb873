package probe

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// A real generator is measured; one that fails is named with its cause.
func TestMeasureAll(t *testing.T) {
	source, err := os.ReadFile(filepath.Join("..", "local", "testdata", "generate.py"))
	dir := t.TempDir()
	t.Setenv("TMPDIR", t.TempDir())
	for _, name := range []string{"good", "crash", "few"} {
		entry := filepath.Join(dir, "source", name, "examples", "generate.py")
		err = errors.Join(err, os.MkdirAll(filepath.Dir(entry), 0o755), os.WriteFile(entry, source, 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	index, err := (&environment.Builder{Root: filepath.Join(dir, "source"), Dir: filepath.Join(dir, "index")}).Build(
		t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list := append(index.Generators, generator.Generator{Name: "unready", Problem: "no environment"})
	results, err := New(time.Minute).MeasureAll(t.Context(), list, 4, func() {})
	if err != nil {
		t.Fatal(err)
	}
	failures := map[string]string{"crash": "crashed: ", "few": "incomplete_output: ",
		"unready": "environment: no environment"}
	for i, m := range results {
		if want := failures[list[i].Name]; want != "" {
			if m.Failure == nil || !strings.HasPrefix(m.Failure.Error(), want) {
				t.Errorf("%s: %+v", list[i].Name, m)
			}
			continue
		}
		c := m.Cost
		if m.Failure != nil || c.Generator != list[i].Name || c.Samples != 4 || c.SampleFiles != 5 || c.SampleBytes < 1000 ||
			c.SampleBytes > 10_000 || c.PeakRSS < 5<<20 || c.Machine == "" || c.CPU(4) < 0.005 || c.CPU(4) > 30 ||
			c.Wall(4) < c.CPU(4)-1e-9 {
			t.Errorf("%s: %+v", list[i].Name, m)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "vm-dataset-canary-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The wall time of the first of many runs does not count, nor does the time for which
// a run waited for others.
func TestCostOf(t *testing.T) {
	made := func(samples int, cpu, wall, waited time.Duration, peak int64) Made {
		m := Made{Waited: waited, Samples: make([]sample.Sample, samples)}
		m.CPU, m.Wall, m.PeakRSS = cpu*time.Second, wall*time.Second, peak
		m.Waited = waited * time.Second
		for i := range m.Samples {
			m.Samples[i].Files = []sample.File{{Size: 10}, {Size: 20}}
		}
		return m
	}
	g := &generator.Generator{Name: "maze", Commit: "abc"}
	for name, x := range map[string]struct {
		runs []Made
		want [6]float64 // start and sample in CPU and wall, peak, sample's memory
	}{
		"a canary": {[]Made{made(1, 3, 4, 0, 100), made(11, 23, 44, 0, 200)}, [6]float64{1, 2, 0, 4, 200, 10}},
		"a check": {[]Made{made(3, 7, 99, 0, 100), made(3, 7, 8, 0, 110), made(6, 13, 24, 10, 140)},
			[6]float64{1, 2, 2, 2, 140, 10}},
		"less wall than CPU": {[]Made{made(2, 4, 9, 8, 100)}, [6]float64{0, 2, 0, 2, 100, 0}},
	} {
		c := CostOf(g, x.runs)
		got := [6]float64{c.StartCPU, c.SampleCPU, c.StartWall, c.SampleWall, float64(c.PeakRSS), float64(c.SampleRSS)}
		for i := range got {
			if math.Abs(got[i]-x.want[i]) > 1e-9 {
				t.Errorf("%s: %v, want %v", name, got, x.want)
				break
			}
		}
		if c.SampleBytes != 30 || c.SampleFiles != 2 || c.Generator != "maze" || c.Commit != "abc" ||
			c.Samples != len(x.runs[len(x.runs)-1].Samples) {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// What lies on a line is found again; nothing ever costs less than nothing, and
// the fit goes through the middle of what was measured.
func TestFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start, each := rapid.Float64Range(0, 100).Draw(t, "start"), rapid.Float64Range(0, 100).Draw(t, "each")
		noise := rapid.SampledFrom([]float64{0, 0.5, 5}).Draw(t, "noise")
		var points []point
		var n, y float64
		for _, size := range []float64{3, 3, 3, 6} {
			p := point{size, max(start+each*size+noise*rapid.Float64Range(-1, 1).Draw(t, "off"), 0.001)}
			points = append(points, p)
			n, y = n+p.n/4, y+p.y/4
		}
		s, e := fit(points)
		if noise == 0 && (math.Abs(s-start) > 0.01 || math.Abs(e-each) > 0.01) {
			t.Errorf("%g + n*%g was fitted as %g + n*%g", start, each, s, e)
		}
		if s < 0 || e < 0 || math.Abs(s+n*e-y) > 1e-6 {
			t.Errorf("the fit is %g + n*%g, the middle is %g at %g", s, e, y, n)
		}
	})
	if start, each := fit([]point{{3, 6}, {3, 12}}); start != 0 || each != 3 {
		t.Errorf("of one size alone: %g + n*%g, want 0 + n*3", start, each)
	}
	if start, each := fit(nil); start != 0 || each != 0 {
		t.Errorf("of nothing: %g + n*%g, want 0", start, each)
	}
}
