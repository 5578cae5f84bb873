package web_test

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// found is what a search has found so far.
type found struct {
	Total     int    `json:"total"`
	Version   string `json:"version"`
	Complete  bool   `json:"complete"`
	Reading   string `json:"reading"`
	Read      int    `json:"read"`
	Of        int    `json:"of"`
	Undecided int    `json:"undecided"`
	Problem   string `json:"problem"`
}

type shown struct {
	Generator string   `json:"generator"`
	Index     int      `json:"index"`
	ID        string   `json:"id"`
	Frame     string   `json:"frame"`
	Video     string   `json:"video"`
	Encoded   bool     `json:"encoded"`
	Strip     []string `json:"strip"`
	Size      int64    `json:"size"`
	Seconds   float64  `json:"seconds"`
	Took      float64  `json:"took"`
	Error     string   `json:"error"`
}

// search waits until a search is complete and returns it with all its samples.
func (s *site) search(q url.Values) (found, []shown) {
	s.t.Helper()
	for began := time.Now(); time.Since(began) < 30*time.Second; {
		f := read[found](s, "/api/view?"+q.Encode())
		if !f.Complete {
			time.Sleep(20 * time.Millisecond) // between two polls, as a page does
			continue
		}
		var list []shown
		for from := 0; from < f.Total; from += 50 {
			page := read[struct{ Items []shown }](s, fmt.Sprintf("/api/samples?%s&from=%d&count=50", q.Encode(), from))
			list = append(list, page.Items...)
		}
		return f, list
	}
	s.t.Fatalf("%v is not complete after 30 s", q)
	return found{}, nil
}

func names(list []shown) (names []string) {
	for _, x := range list {
		names = append(names, fmt.Sprintf("%s:%d", x.Generator, x.Index))
	}
	return names
}

// The grid has what is committed, with holes left out, and finds any index at once.
func TestGeometry(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	chess := maze(8)
	chess.Name, chess.Domain = "chess-generator", "chess"
	b.commit(t, "v1", task.Files, chess)
	b.commit(t, "v1", task.Files, maze(45), task.Range{Start: 0, End: 6}, task.Range{Start: 17, End: 18},
		task.Range{Start: 30, End: 40})
	s := b.serve(t)
	var want []string
	for i := range 8 {
		want = append(want, fmt.Sprintf("chess-generator:%d", i))
	}
	for i := range 45 {
		if i < 6 || i == 17 || i >= 30 && i < 40 {
			want = append(want, fmt.Sprintf("maze-generator:%d", i))
		}
	}
	f, list := s.search(nil)
	if f.Total != 25 || !slices.Equal(names(list), want) {
		t.Fatalf("%d samples: %v, want %v", f.Total, names(list), want)
	}
	for _, c := range []struct {
		q     string
		place int
		there bool
	}{{"of=maze-generator&index=5", 13, true}, {"of=maze-generator&index=6", 14, false},
		{"of=maze-generator&index=17", 14, true}, {"of=maze-generator&index=39", 24, true},
		{"of=maze-generator&index=40", 24, false}, {"of=chess-generator&index=7", 7, true},
		{"generator=maze-generator&index=30", 7, true}, {"index=3", 3, true}} {
		p := read[struct {
			Place int
			There bool
		}](s, "/api/place?"+c.q)
		if p.Place != c.place || p.There != c.there {
			t.Errorf("%s is at %d (%v), want %d (%v)", c.q, p.Place, p.There, c.place, c.there)
		}
	}
	s.get("/sample/maze-generator/17").want(t, 200, "/sample/maze-generator/5", "/sample/maze-generator/30")
	s.get("/sample/maze-generator/18").want(t, 404, "not committed")
	s.get("/samples?generator=nobody").want(t, 200)

	b.commit(t, "v1", task.Files, maze(45), task.Range{Start: 6, End: 10}) // a run goes on
	for began := time.Now(); f.Total != 29 && time.Since(began) < time.Minute; time.Sleep(50 * time.Millisecond) {
		f = read[found](s, "/api/view")
	}
	if f.Total != 29 {
		t.Errorf("a minute after samples were committed it shows %d samples, want 29", f.Total)
	}
}

func TestEmpty(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.serve(t).get("/samples").want(t, 200, "has no samples yet", "submit --all")
}

// oddVideos has one video that browsers do not play, one of another size than its first frame, and one of another length.
func oddVideos(i int, file string) sample.Media {
	m := videos("h264")(0, file)
	switch {
	case !sample.IsVideo(file):
		m.Width, m.Height = 64, 48
	case i == 4:
		m.Codec = "mpeg4"
	case i == 5:
		m.Width = 32
	case i == 6:
		m.Frames = 18
	}
	return m
}

// A filter or an order finds what a person would who reads all receipts and metadata.
func TestFilters(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	first, second := maze(60), maze(60)
	first.Media = oddVideos
	first.Files = func(i int) map[string]string {
		files := plain(i)
		if i == 8 {
			files["notes.txt"] = "more"
		}
		return files
	}
	first.Puzzle = func(i int) string { return fmt.Sprintf("puzzle-%d", i%37) }
	second.Name, second.Domain, second.Receipt = "a-generator", "a", of("other-run")
	second.Commit = strings.Repeat("d", 40)
	second.Files = func(i int) map[string]string {
		files := plain(i * 3)
		if i == 12 {
			files["ground_truth.mp4"] = plain(9)["ground_truth.mp4"] // as index 3 has it
		}
		if i == 13 {
			files["final_frame.png"] = files["first_frame.png"]
		}
		if i%4 == 0 {
			delete(files, "metadata.json")
		}
		return files
	}
	for _, format := range []task.Format{task.Files, task.Tar} {
		t.Run(string(format), func(t *testing.T) {
			d := task.Dataset("d-" + string(format))
			b.commit(t, d, format, first)
			b.commit(t, d, format, second, task.Range{Start: 3, End: 25}, task.Range{Start: 50, End: 60})
			s := b.serve(t)
			base := url.Values{"dataset": {d.String()}}
			_, all := s.search(base)
			if len(all) != 92 {
				t.Fatalf("there are %d samples, want 92", len(all))
			}
			view := dataset.View{Generator: first.Name, Range: task.Range{End: 60}}
			check(t, view.Read(t.Context(), b.store.In(d)))
			_, twins := view.Duplicates()
			splits, err := export.ParseSplits("train=0.7,test=0.3")
			check(t, err)
			of := func(x shown) (s3test.Generator, map[string]string) {
				if x.Generator == first.Name {
					return first, first.Files(x.Index)
				}
				return second, second.Files(x.Index)
			}
			twin := func(x shown) bool {
				return x.Generator == first.Name &&
					slices.ContainsFunc(twins, func(d dataset.Duplicate) bool { return d.Index == x.Index })
			}
			for _, c := range []struct {
				q         string
				keep      func(x shown) bool
				undecided int
			}{
				{"generator=a-generator", func(x shown) bool { return x.Generator == "a-generator" }, 0},
				{"run=other", func(x shown) bool { return x.Generator == second.Name }, 0},
				{"commit=cccc", func(x shown) bool { g, _ := of(x); return g.Commit[0] == 'c' }, 0},
				{"run=run&commit=d", func(shown) bool { return false }, 0},
				{"duplicates=only", twin, 0},
				{"duplicates=without", func(x shown) bool { return !twin(x) }, 0},
				{"splits=train=0.7,test=0.3&split=test", func(x shown) bool {
					g, _ := of(x)
					return splits.At(g.Name, export.Place(g.Fingerprint(x.Index))) == "test"
				}, 0},
				{"splits=train=*,test=a-generator&split=test", func(x shown) bool { return x.Generator == "a-generator" }, 0},
				{"where=difficulty+%3E%3D+3", func(x shown) bool {
					_, files := of(x)
					return strings.Contains(files["metadata.json"], `"difficulty": 3`) ||
						strings.Contains(files["metadata.json"], `"difficulty": 4`)
				}, 8},
				{"hint=unplayable", func(x shown) bool { return x.Generator == first.Name && x.Index == 4 }, 0},
				{"hint=video-size", func(x shown) bool { return x.Generator == first.Name && x.Index == 5 }, 0},
				{"hint=length", func(x shown) bool { return x.Generator == first.Name && x.Index == 6 }, 0},
				{"hint=still", func(x shown) bool { return x.Generator == second.Name && x.Index == 13 }, 0},
				{"hint=same-video", func(x shown) bool {
					return x.Generator == second.Name && (x.Index == 12 || x.Index == 3)
				}, 0},
				{"hint=files", func(x shown) bool { return x.Generator == first.Name && x.Index == 8 }, 0},
				{"hint=any&generator=maze-generator", func(x shown) bool {
					return x.Generator == first.Name && x.Index >= 4 && x.Index <= 8 && x.Index != 7
				}, 0},
				{"where=name+%3D%3D+%22n7%22&generator=maze-generator", func(x shown) bool {
					return x.Generator == first.Name && x.Index == 7
				}, 0},
			} {
				t.Run(c.q, func(t *testing.T) {
					q, err := url.ParseQuery(strings.ReplaceAll(c.q, "train=", "train%3D"))
					check(t, err)
					q.Set("dataset", d.String())
					f, list := s.search(q)
					var want []shown
					for _, x := range all {
						if c.keep(x) {
							want = append(want, x)
						}
					}
					if !slices.Equal(names(list), names(want)) || f.Undecided != c.undecided || f.Problem != "" {
						t.Errorf("%v with %d undecided (%s), want %v with %d", names(list), f.Undecided, f.Problem, names(want),
							c.undecided)
					}
				})
			}
			for sort, by := range map[string]func(a, b shown) int{
				"size":    func(a, b shown) int { return cmp.Compare(a.Size, b.Size) },
				"-size":   func(a, b shown) int { return cmp.Compare(b.Size, a.Size) },
				"-length": func(a, b shown) int { return cmp.Compare(b.Seconds, a.Seconds) },
				"took":    func(a, b shown) int { return cmp.Compare(a.Took, b.Took) },
			} {
				base.Set("sort", sort)
				_, list := s.search(base)
				want := slices.SortedStableFunc(slices.Values(all), by)
				if !slices.Equal(names(list), names(want)) {
					t.Errorf("%s: %v, want %v", sort, names(list), names(want))
				}
			}
		})
	}
}

// A condition that does not fit the metadata, and damage, are reported and stop nobody.
func TestProblems(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze(30))
	s := b.serve(t)
	if f, _ := s.search(url.Values{"where": {"name + 1 > 2"}}); !strings.Contains(f.Problem, "name + 1 > 2") {
		t.Errorf("the problem is %q", f.Problem)
	}
	cell := filepath.Join(b.Folder, "receipts", "v1", "maze-generator", "00000010_00000019.json")
	text, err := os.ReadFile(cell)
	check(t, err)
	check(t, os.WriteFile(cell, text[:len(text)/2/3*3+1], 0o644)) // as a listing shows a part of one
	s = b.serve(t)
	if f, list := s.search(nil); f.Total != 20 || !strings.Contains(f.Problem, "not what was written") {
		t.Errorf("%d of 20 samples: %v, the problem is %q", f.Total, names(list), f.Problem)
	}
	if f, _ := s.search(url.Values{"where": {"difficulty == 3"}}); f.Total != 4 {
		t.Errorf("%d samples of difficulty 3, want 4", f.Total)
	}
	check(t, os.WriteFile(cell, text[:len(text)/2/3*3+2], 0o644)) // and as all of one
	file := filepath.Join(b.Folder, "data", "v1", "maze-generator", "maze_00000002", "prompt.txt")
	check(t, os.WriteFile(file, []byte("Changed!\n"), 0o644))
	s = b.serve(t)
	f, list := s.search(nil)
	if f.Total != 30 || list[9].Error != "" || !strings.Contains(list[10].Error, "not what was written") {
		t.Errorf("%d samples, of which 10 has the error %q", f.Total, list[10].Error)
	}
	if f, list := s.search(url.Values{"sort": {"size"}}); len(list) != 20 ||
		!strings.Contains(f.Problem, "not what was written") {
		t.Errorf("%d of 20 samples are sorted, the problem is %q", len(list), f.Problem)
	}
	s.get("/sample/maze-generator/12").want(t, 500, "not what was written")
	s.get("/sample/maze-generator/2").want(t, 200, "is not what its receipt says", "verify --deep")
	s.get("/media/maze-generator/2/prompt.txt").want(t, 500, "is not what its receipt says", "verify --deep")
}

// Two datasets stand side by side by their indices.
func TestCompare(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	one, two := maze(14), maze(14)
	two.Files = func(i int) map[string]string {
		files := plain(i)
		if i == 3 {
			files["prompt.txt"] = "Another one."
		}
		return files
	}
	b.commit(t, "v1", task.Files, one)
	s := b.serve(t)
	s.get("/compare").want(t, 200, "There is only dataset v1")
	b.commit(t, "v2", task.Tar, two, task.Range{Start: 0, End: 5}, task.Range{Start: 13, End: 14})
	s.get("/compare?with=v2").want(t, 200, `data-index="0" data-verdict="equal"`, `data-index="3" data-verdict="differs"`,
		`data-index="5" data-verdict="only in one"`, "from=12", "ops --stack local dataset diff v1 v2", "format")
	s.get("/compare?with=v2&from=13").want(t, 200, `data-index="13" data-verdict="equal"`)
	s.get("/compare?with=v3").want(t, 404, "no dataset")
}

// Many viewers at once see the same, and a receipt is read once for all of them.
func TestViewers(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Tar, maze(100))
	s := b.serve(t)
	clients := make([]*http.Client, 10)
	for i := range clients {
		clients[i] = s.viewer()
	}
	before := b.requests.Load()
	done := make(chan string)
	for i, c := range clients {
		go func() {
			r := rand.New(rand.NewPCG(uint64(i), 0))
			for range 30 {
				i := r.IntN(100)
				answer, err := c.Get(fmt.Sprintf("%s/media/maze-generator/%d/prompt.txt", s.base, i))
				if err != nil {
					done <- err.Error()
					return
				}
				text, _ := io.ReadAll(answer.Body)
				answer.Body.Close()
				if want := fmt.Sprintf("Solve %d.\n", i); string(text) != want {
					done <- fmt.Sprintf("sample %d has the prompt %q", i, text)
					return
				}
			}
			done <- ""
		}()
	}
	for range clients {
		if wrong := <-done; wrong != "" {
			t.Error(wrong)
		}
	}
	// A manifest and a listing each second, ten receipts and ten shards.
	if n := b.requests.Load() - before; n > 40 {
		t.Errorf("300 requests of ten viewers took %d to the bucket", n)
	}
}

// A sample's page has all that is known of it.
func TestSamplePage(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	g := maze(20)
	g.Receipt = func(r *store.Receipt) {
		of("run-1")(r)
		r.Python, r.Platform, r.Lock, r.Seed = "3.11.7", "linux-x86_64", strings.Repeat("e", 64), 4711
	}
	b.commit(t, "v2", task.Files, g)
	s := b.serve(t)
	s.get("/sample/maze-generator/13?dataset=v2&sort=-size").want(t, 200, "maze_00000013", "Solve 13.",
		`&#34;difficulty&#34;: 3`,
		`id="video"`, `id="first"`, `id="final"`, `id="difference"`, `id="slider"`, `id="step"`, g.Commit,
		strings.Repeat("e", 64),
		"Python 3.11.7, linux-x86_64", "4711", "--seed 7", "/run?dataset=v2&amp;run=run-1",
		"ops --stack local reproduce maze-generator 13 --dataset v2",
		`rel="prev" href="/sample/maze-generator/14?dataset=v2&amp;sort=-size"`,
		`rel="next" href="/sample/maze-generator/12?dataset=v2&amp;sort=-size"`, "at=maze-generator%3A13")
}

// Removing flags needs no receipt: it goes on where one is damaged.
func TestUnflagDamaged(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze(30))
	s := b.serve(t)
	s.do(s.client, "POST", "/flags?do=add&reason=x&sample=maze-generator:11&sample=maze-generator:2", "Origin",
		s.base).want(t,
		200, `"flags":2`)
	cell := filepath.Join(b.Folder, "receipts", "v1", "maze-generator", "00000010_00000019.json")
	check(t, os.WriteFile(cell, []byte("{"), 0o644))
	s.do(s.client, "POST", "/flags?do=remove&sample=maze-generator:11", "Origin", s.base).want(t, 200, `"flags":1`)
	check(t, os.Remove(cell))
	s.do(s.client, "POST", "/flags?do=remove&sample=maze-generator:2", "Origin", s.base).want(t, 200, `"flags":1`)
	s.get("/flags").want(t, 200, "Nothing is flagged")
}

// Flags of several generators are those that are said to be set, also if one of the samples is not there.
func TestFlagSeveral(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	chess := maze(3)
	chess.Name, chess.Domain = "chess-generator", "chess"
	b.commit(t, "v1", task.Files, chess)
	b.commit(t, "v1", task.Files, maze(3))
	s := b.serve(t)
	const add = "/flags?do=add&reason=x&sample=chess-generator:1&sample=maze-generator:"
	s.do(s.client, "POST", add+"7", "Origin", s.base).want(t, 400, "1 sample of other generators flagged",
		"not committed: 7")
	s.get("/flags").want(t, 200, "1 flag:", "chess_00000001")
	s.do(s.client, "POST", add+"2", "Origin", s.base).want(t, 200, `"flags":2`,
		"ops --stack local flags add --reason x maze-generator 2")
	s.get("/flags").want(t, 200, "2 flags:", "maze_00000002")

	// All that are not open go, also those of generators of which no row is ticked.
	cells, err := filepath.Glob(filepath.Join(b.Folder, "receipts", "v1", "*", "*.json"))
	check(t, err)
	for _, cell := range cells {
		check(t, os.Remove(cell))
	}
	s.do(s.client, "POST", "/flags?do=remove+resolved&sample=maze-generator:2", "Origin", s.base).want(t, 200,
		`"flags":2`, "flags remove --resolved")
}
