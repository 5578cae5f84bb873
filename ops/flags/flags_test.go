package flags_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/flags"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestMain(m *testing.M) {
	s3server.Main()
	os.Exit(m.Run())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// commit commits the receipt of a cell; the files of its samples are said to hold text.
func commit(t testing.TB, st *store.Store, generator string, cell task.Range, text string) {
	t.Helper()
	c, err := st.Take(t.Context(), generator, cell, store.Holder{RequestID: text, Seconds: 60},
		func(*store.Cell) bool { return true })
	check(t, err)
	r := store.Receipt{Generator: generator, Start: cell.Start, End: cell.End, ChunkSize: cell.Len(), Domain: "d",
		Format: task.Files}
	for i := cell.Start; i < cell.End; i++ {
		r.Samples = append(r.Samples, store.ReceiptSample{Index: i, ID: task.SampleID("d", i), Files: []store.ReceiptFile{
			{Name: "prompt.txt", Size: 1, SHA256: fmt.Sprint(text, i)}}})
	}
	check(t, st.Commit(t.Context(), c, r, -1, true))
}

func samples(indices ...int) (list []flags.Sample) {
	for _, i := range indices {
		list = append(list, flags.Sample{Index: i})
	}
	return list
}

// brief writes flags as "maze 3 by ada: reason (open)".
func brief(t testing.TB, st *store.Store, generators ...string) (lines []string) {
	t.Helper()
	list, err := flags.List(t.Context(), st, generators...)
	check(t, err)
	states, err := flags.States(t.Context(), st, list)
	check(t, err)
	for _, f := range states {
		lines = append(lines, fmt.Sprintf("%s %d by %s: %s (%s)", f.Generator, f.Index, f.By, f.Reason, f.State))
	}
	return lines
}

func same(t testing.TB, got, want []string) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("there is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Many people flag and remove flags at once, in the same objects: every flag that somebody set
// and nobody removed is there.
func TestManyAtOnce(t *testing.T) {
	st := s3test.New(t).Store(nil).In("v2")
	commit(t, st, "maze", task.Range{End: 50}, "a")
	commit(t, st, "maze", task.Range{Start: 10_000, End: 10_050}, "a")
	const people, each = 8, 3
	var group errgroup.Group
	for p := range people {
		group.Go(func() error {
			by := fmt.Sprintf("person-%02d", p)
			for n := range each {
				if _, err := flags.Add(t.Context(), st, "maze", samples(n, 49, 10_000+p), fmt.Sprint("reason ", n), by); err != nil {
					return fmt.Errorf("%s: %w", by, err)
				}
			}
			list, err := flags.List(t.Context(), st, "maze")
			if err != nil {
				return err
			}
			var own []flags.Flag
			for _, f := range list {
				if f.By == by && f.Index == 49 {
					own = append(own, f)
				}
			}
			return flags.Remove(t.Context(), st, own)
		})
	}
	check(t, group.Wait())
	var want []string
	for i := range each {
		for p := range people {
			want = append(want, fmt.Sprintf("maze %d by person-%02d: reason %d (open)", i, p, i))
		}
	}
	for p := range people {
		want = append(want, fmt.Sprintf("maze %d by person-%02d: reason %d (open)", 10_000+p, p, each-1))
	}
	same(t, brief(t, st), want)
	var keys []string
	for o, err := range st.List(t.Context(), "flags/", "") {
		check(t, err)
		keys = append(keys, o.Key)
	}
	same(t, keys, []string{"flags/v2/maze/00000000_00009999.json", "flags/v2/maze/00010000_00019999.json"})
}

// A flag is of the files that were flagged: it is resolved when a repair has replaced them.
func TestStates(t *testing.T) {
	st := s3test.New(t).Store(nil)
	for start := 0; start < 20; start += 10 {
		commit(t, st, "maze", task.Range{Start: start, End: start + 10}, "a")
	}
	commit(t, st, "chess", task.Range{End: 10}, "a")
	for _, c := range []struct {
		generator string
		indices   []int
		by        string
	}{{"maze", []int{3, 12, 12}, "ada"}, {"maze", []int{3, 4}, "bob"}, {"chess", []int{9}, "ada"}} {
		_, err := flags.Add(t.Context(), st, c.generator, samples(c.indices...), " two\nexits ", c.by)
		check(t, err)
	}
	same(t, brief(t, st), []string{"chess 9 by ada: two exits (open)", "maze 3 by ada: two exits (open)",
		"maze 3 by bob: two exits (open)", "maze 4 by bob: two exits (open)", "maze 12 by ada: two exits (open)"})

	commit(t, st, "maze", task.Range{End: 10}, "a") // the same bytes
	commit(t, st, "maze", task.Range{Start: 10, End: 20}, "b")
	check(t, st.Delete(t.Context(), []string{st.Dataset().CellKey("chess", task.Range{End: 10})}))
	list, err := flags.List(t.Context(), st)
	check(t, err)
	same(t, brief(t, st), []string{"chess 9 by ada: two exits (gone)", "maze 3 by ada: two exits (open)",
		"maze 3 by bob: two exits (open)", "maze 4 by bob: two exits (open)", "maze 12 by ada: two exits (resolved)"})

	// The plan has each open sample once.
	states, err := flags.States(t.Context(), st, list)
	check(t, err)
	plan := flags.Plan(st, states)
	if len(plan.Generators) != 1 || len(plan.Generators[0].Replace) != 2 || plan.Generators[0].Replace[1].Index != 4 ||
		plan.Range.Len() != 0 {
		t.Errorf("%+v", plan)
	}

	// What was flagged again since it was listed stays.
	_, err = flags.Add(t.Context(), st, "maze", samples(12), "still", "ada")
	check(t, err)
	check(t, flags.Remove(t.Context(), st, list))
	same(t, brief(t, st), []string{"maze 12 by ada: still (open)"})
}

func TestRefusals(t *testing.T) {
	st := s3test.New(t).Store(nil)
	commit(t, st, "maze", task.Range{End: 10}, "a")
	for _, c := range []struct {
		list []flags.Sample
		by   string
		want string
	}{
		{samples(3, 10), "ada", "nothing was flagged: 1 sample of maze is not committed: 10"},
		{[]flags.Sample{{Index: 3, ID: "e_00000003"}}, "ada",
			"nothing was flagged: 1 sample of maze is not committed: e_00000003"},
		{samples(11, 12, 13, 14), "ada",
			"nothing was flagged: 4 samples of maze are not committed: 11, 12, 13 and 1 more"},
		{samples(3), " \n", "a flag needs the name of who sets it"},
	} {
		if _, err := flags.Add(t.Context(), st, "maze", c.list, "", c.by); err == nil || err.Error() != c.want {
			t.Errorf("%v: %v, want %s", c.list, err, c.want)
		}
	}
	same(t, brief(t, st), nil)
	check(t, onlyError(st.PutNew(t.Context(), "flags/v1/maze/00000000_00009999.json", []byte(`{"version": 2}`))))
	if _, err := flags.List(t.Context(), st); err == nil || !strings.Contains(err.Error(), "of another version") {
		t.Errorf("another version: %v", err)
	}
	if _, err := flags.Add(t.Context(), st, "maze", samples(3), "", "ada"); err == nil ||
		!strings.Contains(err.Error(), "of another version") {
		t.Errorf("flagging with another version there: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := flags.Add(ended, st, "maze", samples(3), "", "ada"); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

func onlyError[T any](_ T, err error) error { return err }

func TestParseSamples(t *testing.T) {
	for _, c := range []struct{ words, want string }{
		{"12", "[12]"}, {"10-12 7", "[10 11 12 7]"}, {"maze_00000012 a_b_00000001", "[maze_00000012 a_b_00000001]"},
		{"99999999", "[99999999]"}, {"100000000", "error"}, {"-1", "error"}, {"5-3", "error"}, {"maze_12", "error"},
		{"", "error"}, {"x", "error"}, {"1-", "error"}, {"0-99999 100000", "error"}, {"1-2-3", "error"},
	} {
		list, err := flags.ParseSamples(strings.Split(c.words, " "))
		if got := fmt.Sprint(list); err != nil && c.want != "error" || err == nil && got != c.want {
			t.Errorf("%q: %s, %v", c.words, got, err)
		}
	}
}
