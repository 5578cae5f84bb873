package plan

import (
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func compare(t *testing.T, run task.Run, cost Cost, s Setting, cpus int) map[string]Place {
	t.Helper()
	list, err := Compare(run, map[string]Cost{"even": cost}, s, cpus)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]Place{}
	for _, p := range list {
		byName[p.Name] = p
	}
	return byName
}

// By hand: 1,000 samples are 10 tasks of 5 chunks.
func TestCompare(t *testing.T) {
	s := Setting{Worker: DefaultWorker(), Concurrency: 10}
	run := runOf(1000, 100, 20, task.Files)
	e := estimate(t, run, even, s)
	got := compare(t, run, even, s, 2)

	seconds := 10*(11.05*(1+0.05*1.16)+0.25) + 10*3
	requests := e.Make - seconds*10*0.0000166667 - seconds*1.5*0.0000000309 - 10*0.0000002
	if p := got[OnLambda]; p.Dollars != e.Make || !near(p.Compute+requests, p.Dollars) || p.Workers != 10 ||
		!near(p.CPUs, 102400.0/1769) || p.Seconds != e.takes(10) {
		t.Errorf("%+v", p)
	}
	if p := got[OnARM]; !near(got[OnLambda].Dollars-p.Dollars, seconds*10*(0.0000166667-0.0000133334)) ||
		p.Seconds != got[OnLambda].Seconds {
		t.Errorf("%+v", p)
	}
	// 15 machines of 4 CPUs for 57.9, of which 10 have a task: a wave of 4 chunks, and a chunk.
	wall := 11.05 + 11.05 + 0.25
	for name, want := range map[string]struct{ start, hour float64 }{
		OnFargate: {180, 4*0.01288871 + 8*0.00141527 + 0.005}, OnEC2: {300, 4*0.021 + 0.005},
	} {
		p := got[name]
		paid := 10 * (want.start + wall + 300) / 3600
		if p.Workers != 15 || p.CPUs != 60 || !near(p.Seconds, want.start+wall) || !near(p.Compute, paid*want.hour) ||
			!near(p.Dollars, p.Compute+requests) {
			t.Errorf("%s: %+v, want %g s and %g USD", name, p, want.start+wall, paid*want.hour)
		}
	}
	if p := got[Here]; p.Dollars != 0 || p.CPUs != 2 || !near(p.Seconds, 275) {
		t.Errorf("%+v", p)
	}
	s.Concurrency = 900 // 5,210 CPUs: more than a fleet may have
	if p := compare(t, run, even, s, 2)[OnEC2]; p.Workers != 1000 || len(p.Problems) > 0 {
		t.Errorf("%+v", p)
	}
	for name, p := range got {
		for _, of := range p.Prices {
			if of.Dollars <= 0 || of.Unit == "" || of.Source == "" || of.Date == "" {
				t.Errorf("%s: %+v", name, of)
			}
		}
		if (len(p.Prices) == 0) != (name == Here) || len(p.Problems) > 0 {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// What cannot work in one place may in another: a chunk of 9,000 MiB has room in Lambda's largest
// worker alone, one of 20 hours nowhere.
func TestCompareProblems(t *testing.T) {
	s := Setting{Worker: DefaultWorker(), Concurrency: 10}
	large, long := even, even
	large.PeakRSS = 9000 << 20
	long.SampleCPU, long.SampleWall = 3600, 3600
	for _, c := range []struct {
		name    string
		cost    Cost
		problem map[string]bool
	}{
		{"large", large, map[string]bool{OnFargate: true, OnEC2: true}},
		{"long", long, map[string]bool{OnLambda: true, OnARM: true, OnFargate: true, OnEC2: true}},
	} {
		for name, p := range compare(t, runOf(1000, 100, 20, task.Files), c.cost, s, 2) {
			if got := len(p.Problems) > 0; got != c.problem[name] {
				t.Errorf("%s: %s: %v", c.name, name, p.Problems)
			}
		}
	}
	for name, p := range compare(t, runOf(0, 100, 20, task.Files), even, s, 2) {
		if p.Seconds != 0 || p.Compute != 0 {
			t.Errorf("nothing to make: %s: %+v", name, p)
		}
	}
}

func TestRecommend(t *testing.T) {
	list := func(x86, arm, fargate, ec2, here float64) []Place {
		return []Place{{Name: OnLambda, Dollars: x86}, {Name: OnARM, Dollars: arm}, {Name: OnFargate, Dollars: fargate},
			{Name: OnEC2, Dollars: ec2}, {Name: Here, Seconds: here * 3600}}
	}
	broken := func(list []Place, names ...int) []Place {
		for _, n := range names {
			list[n].Problems = []string{"no"}
		}
		return list
	}
	for _, c := range []struct {
		name      string
		list      []Place
		want, why string
	}{
		{"soon here", list(10, 8, 2, 2.5, 0.9), Here, "it costs nothing"},
		{"the cheapest", list(10, 8, 2, 2.5, 9), OnFargate, "it saves 80 % of Lambda, x86_64"},
		{"the cheapest is last", list(10, 8, 3, 2.5, 9), OnEC2, "it saves 75 % of Lambda, x86_64"},
		{"too little to set anything up", list(1, 0.8, 0.2, 0.2, 9), OnLambda, "no other saves a tenth of it and a dollar"},
		{"no tenth", list(100, 95, 91, 99, 9), OnLambda, "no other saves a tenth of it and a dollar"},
		{"Lambda cannot", broken(list(10, 8, 2, 1.5, 9), 0, 1), OnFargate, "no other saves a tenth of it and a dollar"},
		{"nothing on AWS can", broken(list(10, 8, 2, 2, 9), 0, 1, 2, 3), Here, "it costs nothing"},
		{"nothing can", broken(list(10, 8, 2, 2, 9), 0, 1, 2, 3, 4), "", "no other saves a tenth of it and a dollar"},
	} {
		if best, why := Recommend(c.list); best.Name != c.want || why != c.why {
			t.Errorf("%s: %q, %q", c.name, best.Name, why)
		}
	}
}
