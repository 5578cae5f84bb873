package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

type InspectCmd struct {
	inDataset
	Generator []string `help:"Only this generator; may be repeated." placeholder:"NAME" predictor:"generator"`
	Hint      []string `help:"List all samples that have this hint; may be repeated. 'any' means every one." placeholder:"HINT"`

	Videos sampled  `help:"Decode the videos of so many samples of each generator, spread evenly, or of all." placeholder:"N|all"`
	Eval   sampled  `help:"Have each generator's own judge, eval/verify.py, score so many samples." placeholder:"N|all"`
	Near   nearness `help:"List samples that look nearly alike instead: the hashes of their first and final frames differ in at most so many bits of 512, and no pixel of small copies by 8 %. Default: 48." placeholder:"BITS"`
	To     string   `help:"With --near: folder for sheets of the groups' pictures." type:"path" placeholder:"DIR"`

	listed   inspect.Set
	unscored []string // generators whose judge failed
}

func (*InspectCmd) Help() string {
	var kinds strings.Builder
	for _, a := range inspect.Kinds {
		fmt.Fprintf(&kinds, "  %s: %s\n", a.Kind, a.Text)
	}
	return `Reads the receipts of all committed samples and counts what people want to know of samples that are complete. SHARE is of the generator's samples; EXAMPLES are ids.

The hints:

` + kinds.String() + `
"Nearly all" is 90 % of a generator's samples. A hint is no failure: a dataset with hints is complete, and a generator may mean it so.

The video-... hints need --videos: a video's frames are compared with the pictures, and with its first frame, at 64 by 64 fields; a field that differs by 8 % or more shows something else. The environment of the generator decodes it, or another one on this machine.

low-score needs --eval: the judge runs in the generator's environment and in the sandbox, and the generator must be in the folder. Ground truth should have 100 %.

--near compares perceptual hashes of all samples' pictures, and prints groups of samples that are near another one of their group.

Exit status 0, whether there are hints or not. 2: a judge does not give all points to some of the samples, or fails.

Examples:
  ops --stack dev inspect
  ops --stack dev inspect --generator maze-task-data-generator --hint one-colour
  ops --stack dev inspect --videos 200 --eval 20
  ops --stack dev inspect --near --to look --generator maze-task-data-generator
  ops --stack dev inspect --json`
}

func (c *InspectCmd) Validate() error {
	if c.Near.given && (c.Videos.given || c.Eval.given || len(c.Hint) > 0) {
		return ui.Usage("--near lists groups of samples: it goes with no other hint")
	}
	if c.To != "" && !c.Near.given {
		return ui.Usage("--to belongs to --near")
	}
	for _, text := range c.Hint {
		if text == "any" {
			c.listed = ^inspect.Set(0)
			continue
		}
		kind, err := inspect.ParseKind(text)
		if err != nil {
			return ui.Usage("--hint: %v, any", err)
		}
		if needs := map[bool]string{true: "--eval", false: "--videos"}[kind == inspect.LowScore]; kind.Deep() &&
			(kind == inspect.LowScore && !c.Eval.given || kind != inspect.LowScore && !c.Videos.given) {
			return ui.Usage("--hint %s needs %s", kind, needs)
		}
		c.listed |= kind.Set()
	}
	return nil
}

func (c *InspectCmd) Run(ctx context.Context, o *Output, st *store.Store) error {
	names, err := committed(ctx, st, c.Generator)
	if err != nil {
		return err
	}
	if c.Near.given {
		return c.near(ctx, o, st, names)
	}
	collectOften()
	scan := inspect.Scan{Store: st, List: c.listed, Progress: o.Progress}
	reports, low := []*inspect.Report{}, false
	judges, err := c.judges(ctx, o, names)
	if err != nil {
		return err
	}
	for _, name := range names {
		if scan.Deep, err = c.deep(ctx, o, st, name, judges[name]); err != nil {
			return err
		}
		low = low || inspect.LowScore.Set()&scan.Deep.Set() != 0
		r, err := scan.Generator(ctx, name)
		if err != nil {
			return err
		}
		if r.Samples > 0 { // else its cells were taken, and nothing is committed
			reports = append(reports, r)
		}
	}
	err = o.Print(reports, func(w io.Writer) {
		if c.listed != 0 {
			listHints(w, reports, c.listed)
			return
		}
		printHints(w, reports)
	})
	return cmp.Or(err, ui.ProblemIf(len(c.unscored) > 0, "the judges of %s gave no scores", ui.Some(c.unscored, 3)),
		ui.ProblemIf(low, ""))
}

// listHints prints a line for each hint of a sample.
func listHints(w io.Writer, reports []*inspect.Report, kinds inspect.Set) {
	fmt.Fprintln(w, "GENERATOR\tHINT\tINDEX\tID\tFILE\tWHAT")
	for _, r := range reports {
		for _, c := range r.Hints {
			for _, f := range c.Found {
				if kinds&c.Kind.Set() != 0 {
					fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", r.Generator, f.Kind, f.Index, f.ID, f.File, f.Text)
				}
			}
		}
	}
}

// printHints prints how many samples have each hint.
func printHints(w io.Writer, reports []*inspect.Report) {
	fmt.Fprintln(w, "GENERATOR\tHINT\tSAMPLES\tSHARE\tEXAMPLES")
	samples, hinted := 0, 0
	for _, r := range reports {
		samples, hinted = samples+r.Samples, hinted+r.Hinted
		for _, c := range r.Hints {
			var ids []string
			for _, f := range c.Found {
				if len(ids) == 0 || ids[len(ids)-1] != f.ID {
					ids = append(ids, f.ID)
				}
			}
			ids = ids[:min(len(ids), 3)]
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s%s\n", r.Generator, c.Kind, ui.Count(c.Samples), share(c.Share),
				strings.Join(ids, ", "), ui.More(c.Samples-len(ids)))
		}
	}
	fmt.Fprintf(w, "%s, %s; %s\n", ui.Plural(len(reports), "generator"), ui.Plural(samples, "sample"),
		map[bool]string{true: "no hints", false: ui.Count(hinted) + " with a hint"}[hinted == 0])
}

// share is a part of a whole in percent; what is not zero never reads so.
func share(part float64) string {
	if part > 0 && part < 0.001 {
		return "< 0.1 %"
	}
	return fmt.Sprintf("%.1f %%", 100*part)
}
