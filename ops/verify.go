package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// VerifyCmd checks that a run is whole.
type VerifyCmd struct {
	choice
	Run_    string `help:"Run to verify. Default: the newest." name:"run" placeholder:"ID"`
	Samples int    `help:"With --all or --generator: samples per generator that must be there." placeholder:"N"`
	Start   int    `help:"With --samples: first index." default:"0"`
}

// Help is the long help.
func (*VerifyCmd) Help() string {
	return `Reads every receipt and lists every object: each index must be committed, each object of a receipt must be there with its size, no object may be there without a receipt, and no two samples of a generator may be the same puzzle.

Exit status 0: whole. 2: something is missing, or objects do not fit their receipts. Duplicates are reported and do not change the status: some generators draw from a small pool.

Examples:
  ops --stack dev verify
  ops --stack dev verify --all --samples 10000 --json`
}

// Validate checks the flags.
func (c *VerifyCmd) Validate() error {
	if c.given() && c.Samples < 1 {
		return usage("say how many samples per generator must be there: --samples N")
	}
	if c.given() && c.Run_ != "" {
		return usage("--run says which generators: leave --all and --generator out")
	}
	if !c.given() && c.Samples > 0 {
		return usage("say which generators: --all, or --generator NAME")
	}
	return nil
}

// Run verifies and prints the report.
func (c *VerifyCmd) Run(ctx context.Context, o *Output, t *Target, st *store.Store) error {
	var run task.Run
	if c.given() {
		list, err := discover(o.Globals)
		if err != nil {
			return err
		}
		var all []string
		for _, g := range list {
			all = append(all, g.Name)
		}
		names, err := c.names(all)
		if err != nil {
			return err
		}
		run = task.Run{Start: c.Start, Samples: c.Samples}
		for _, name := range names {
			run.Generators = append(run.Generators, task.RunGenerator{Name: name})
		}
	} else {
		var err error
		if run, err = findRun(ctx, st, c.Run_, t); err != nil {
			return err
		}
	}
	report, err := verify(ctx, st, run, func(done int) { o.Progress("verifying", done, len(run.Generators)) })
	if err != nil {
		return err
	}
	if err := o.Print(report, report.table); err != nil {
		return err
	}
	if report.Whole {
		return nil
	}
	if run.ID == "" {
		return &statusError{status: exitProblem}
	}
	return withHint(&statusError{status: exitProblem}, "ops%s submit --missing --run %s", t.flags(), run.ID)
}

// Report is what verify found.
type Report struct {
	Run        string            `json:"run,omitempty"`
	Whole      bool              `json:"whole"`
	Samples    int               `json:"samples"` // that are committed in the range
	Bytes      int64             `json:"bytes"`   // of their files
	Generators []GeneratorReport `json:"generators"`
}

// GeneratorReport is what verify found of one generator.
type GeneratorReport struct {
	Name       string      `json:"name"`
	Whole      bool        `json:"whole"`
	Expected   int         `json:"expected"`
	Samples    int         `json:"samples"`
	Bytes      int64       `json:"bytes"`
	Missing    []string    `json:"missing,omitempty"`    // ranges, first and last index
	Duplicates []Duplicate `json:"duplicates,omitempty"` // later samples that equal an earlier one
	Problems   []string    `json:"problems,omitempty"`   // objects that do not fit the receipts
	Seeds      []int       `json:"seeds"`                // run seeds that made it; more than one is a mixture
}

// Duplicate is a sample that is the same puzzle as an earlier one.
type Duplicate struct {
	Index int `json:"index"`
	Of    int `json:"of"`
}

// maxProblems bounds the problems named per generator; there is always a count.
const maxProblems = 20

// verify checks the generators of a run one after the other.
func verify(ctx context.Context, st *store.Store, run task.Run, progress func(done int)) (*Report, error) {
	report := &Report{Run: run.ID, Whole: true}
	for i, g := range run.Generators {
		r, err := verifyGenerator(ctx, st, g.Name, run.Range())
		if err != nil {
			return nil, fmt.Errorf("verify %s: %w", g.Name, err)
		}
		report.Generators = append(report.Generators, *r)
		report.Whole = report.Whole && r.Whole
		report.Samples += r.Samples
		report.Bytes += r.Bytes
		progress(i + 1)
	}
	return report, nil
}

// held is what is known of one index while a generator is verified.
type held struct {
	claim int
	mark  [16]byte // of the fingerprint
}

func verifyGenerator(ctx context.Context, st *store.Store, name string, whole task.Range) (*GeneratorReport, error) {
	r := &GeneratorReport{Name: name, Expected: whole.Len(), Seeds: []int{}}
	var names []store.ReceiptName
	for n, err := range st.ReceiptNames(ctx, name) {
		if err != nil {
			return nil, err
		}
		if n.Range.Overlaps(whole) {
			names = append(names, n)
		}
	}
	indices := make(map[int]held, whole.Len())
	objects := map[string]expected{}
	seeds := map[int]bool{}
	for receipt, err := range st.ReadReceipts(ctx, names) {
		if err != nil {
			return nil, err
		}
		if !seeds[receipt.RunSeed] {
			seeds[receipt.RunSeed] = true
			r.Seeds = append(r.Seeds, receipt.RunSeed)
		}
		if receipt.Shard != nil {
			objects[receipt.Shard.Key] = expected{receipt.Shard.Size, receipt.Claim}
		}
		for _, s := range receipt.Samples {
			if s.Index < whole.Start || s.Index >= whole.End {
				continue
			}
			if before, there := indices[s.Index]; there && before.claim > receipt.Claim {
				continue // superseded
			}
			h := held{claim: receipt.Claim}
			mark, err := hex.DecodeString(s.Fingerprint)
			if err != nil || len(mark) < len(h.mark) {
				mark = []byte(fmt.Sprintf("%-16s", s.Fingerprint))
			}
			copy(h.mark[:], mark)
			indices[s.Index] = h
			r.Samples++
			for _, f := range s.Files {
				r.Bytes += f.Size
				key := task.FileKey(name, s.ID, f.Name)
				if receipt.Shard == nil && objects[key].claim <= receipt.Claim {
					objects[key] = expected{f.Size, receipt.Claim}
				}
			}
		}
	}
	r.Samples = len(indices)
	r.missing(whole, indices)
	r.duplicates(whole, indices)
	if err := r.objects(st.List(ctx, task.DataPrefix+name+"/", ""), objects, whole); err != nil {
		return nil, err
	}
	r.Whole = len(r.Missing) == 0 && len(r.Problems) == 0
	return r, nil
}

type expected struct {
	size  int64
	claim int
}

func (r *GeneratorReport) missing(whole task.Range, indices map[int]held) {
	start := -1
	for i := whole.Start; i <= whole.End; i++ {
		_, there := indices[i]
		switch {
		case i < whole.End && !there && start < 0:
			start = i
		case (i == whole.End || there) && start >= 0:
			r.Missing = append(r.Missing, fmt.Sprintf("%d-%d", start, i-1))
			start = -1
		}
	}
}

func (r *GeneratorReport) duplicates(whole task.Range, indices map[int]held) {
	first := make(map[[16]byte]int, len(indices))
	for i := whole.Start; i < whole.End; i++ {
		h, there := indices[i]
		if !there {
			continue
		}
		if of, again := first[h.mark]; again {
			r.Duplicates = append(r.Duplicates, Duplicate{Index: i, Of: of})
		} else {
			first[h.mark] = i
		}
	}
}

// objects compares what is stored with what the receipts say. Objects of
// indices outside the range are not looked at.
func (r *GeneratorReport) objects(stored iter.Seq2[store.Object, error], want map[string]expected, whole task.Range) error {
	problems := 0
	note := func(format string, args ...any) {
		if problems++; problems <= maxProblems {
			r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
		}
	}
	for o, err := range stored {
		if err != nil {
			return err
		}
		e, there := want[o.Key]
		switch {
		case there && e.size != o.Size:
			note("%s has %d bytes, its receipt says %d", o.Key, o.Size, e.size)
		case !there && inRange(o.Key, whole):
			note("%s is there without a receipt", o.Key)
		}
		delete(want, o.Key)
	}
	for key := range want {
		note("%s is not there, a receipt says it is", key)
	}
	if problems > maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf("and %d more", problems-maxProblems))
	}
	return nil
}

// inRange reports whether a data object is one of a sample or shard in a range.
func inRange(key string, whole task.Range) bool {
	parts := strings.Split(strings.TrimPrefix(key, task.DataPrefix), "/")
	switch len(parts) {
	case 2: // a shard: <generator>/<generator>_<start>_<end>.tar.gz
		name := strings.TrimPrefix(strings.TrimSuffix(parts[1], ".tar.gz"), parts[0]+"_")
		r, _, ok := task.ReceiptRange(name + ".json")
		return !ok || whole.Overlaps(r)
	case 3: // a file: <generator>/<domain>_<index>/<file>
		var index int
		id := parts[1]
		if _, err := fmt.Sscanf(id[strings.LastIndex(id, "_")+1:], "%d", &index); err != nil {
			return true
		}
		return whole.Start <= index && index < whole.End
	}
	return true
}

func (r *Report) table(w io.Writer) {
	fmt.Fprintln(w, "GENERATOR\tSAMPLES\tMISSING\tDUPLICATES\tSIZE\t")
	for _, g := range r.Generators {
		verdict := "whole"
		if !g.Whole {
			verdict = "NOT whole"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", g.Name, count(g.Samples), count(g.Expected-g.Samples), count(len(g.Duplicates)), size(g.Bytes), verdict)
	}
	for _, g := range r.Generators {
		if len(g.Missing) > 0 {
			fmt.Fprintf(w, "%s: missing %s\n", g.Name, shorten(g.Missing))
		}
		for _, p := range g.Problems {
			fmt.Fprintf(w, "%s: %s\n", g.Name, p)
		}
		if len(g.Seeds) > 1 {
			fmt.Fprintf(w, "%s: made with the seeds %v\n", g.Name, g.Seeds)
		}
		var pairs []string
		for _, d := range g.Duplicates {
			pairs = append(pairs, fmt.Sprintf("%d = %d", d.Index, d.Of))
		}
		if len(pairs) > 0 {
			fmt.Fprintf(w, "%s: duplicates %s\n", g.Name, shorten(pairs))
		}
	}
	verdict := "whole"
	if !r.Whole {
		verdict = "NOT whole"
	}
	fmt.Fprintf(w, "%s: %s, %s, %s\n", verdict, plural(len(r.Generators), "generator"), plural(r.Samples, "sample"), size(r.Bytes))
}

// shorten joins the first ten of a list.
func shorten(list []string) string {
	if len(list) > 10 {
		return strings.Join(list[:10], ", ") + fmt.Sprintf(" and %d more", len(list)-10)
	}
	return strings.Join(list, ", ")
}
