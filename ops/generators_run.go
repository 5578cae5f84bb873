package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/contract"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/probe"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type GeneratorsRunCmd struct {
	optionFlags
	Name    string `arg:"" help:"The generator." predictor:"generator"`
	Samples int    `help:"How many samples to make." default:"5"`
	Seed    int    `help:"Seed that the generator is given." default:"42"`
	To      string `help:"Folder for the files that it makes; new, or empty." required:"" type:"path" placeholder:"DIR"`
}

func (*GeneratorsRunCmd) Help() string {
	return `For authors of generators. Runs one process of the generator with the environment, the variables, the private folders and the sandbox of a worker, and checks its samples as a worker does. DIR gets the files that it wrote, even if it fails, and contact sheets: DIR/contact-sheet.png has a row for each sample with its first frame, four frames of its video, and its final frame. Each sheet has 25 samples; the next ones are contact-sheet-2.png and so on.

Exit status 0: a worker would accept the samples. 2: it would not, for the reason that its failure report would give.

Examples:
  ops generators run my-generator --to /tmp/samples
  ops generators run my-generator --option difficulty=5 --to /tmp/hard
  ops generators run my-generator --samples 20 --seed 7 --to /tmp/samples --json`
}

func (c *GeneratorsRunCmd) Validate() error {
	return cmp.Or(between("--samples", &c.Samples, 1, task.MaxSamples), between("--seed", &c.Seed, 0, task.MaxSeed),
		c.check())
}

// Tried is what run prints.
type Tried struct {
	Generator string       `json:"generator"`
	Command   []string     `json:"command"`
	To        string       `json:"to"`
	NotKept   []string     `json:"not_kept,omitempty"` // of what it wrote
	Sheets    []string     `json:"sheets,omitempty"`   // a page for each contract.PerSheet samples
	CPU       float64      `json:"cpu_seconds"`
	Wall      float64      `json:"wall_seconds"`
	PeakRSS   int64        `json:"peak_rss_bytes"`
	Samples   []TriedOne   `json:"samples"`
	Failure   *TriedFailed `json:"failure,omitempty"`
}

// TriedOne is one sample.
type TriedOne struct {
	ID     string   `json:"id"`
	Prompt string   `json:"prompt"`
	Files  []string `json:"files"`
	Bytes  int64    `json:"bytes"`
}

// TriedFailed is why there are no samples.
type TriedFailed struct {
	Cause    task.Cause `json:"cause"`
	Detail   string     `json:"detail"`
	Means    string     `json:"means"`
	Remedy   string     `json:"remedy"`
	ExitCode int        `json:"exit_code"`
	Signal   string     `json:"signal,omitempty"`
	Stdout   string     `json:"stdout,omitempty"`
	Stderr   string     `json:"stderr,omitempty"`
}

func (c *GeneratorsRunCmd) Run(ctx context.Context, o *Output) error {
	if entries, err := os.ReadDir(c.To); err == nil && len(entries) > 0 {
		return ui.WithHint(fmt.Errorf("%s is not empty", c.To), "name a new folder with --to")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	chosen, err := o.inventory().PrepareFolder(ctx, []string{c.Name})
	if err != nil {
		return err
	}
	if _, err := c.give(o, chosen); err != nil {
		return err
	}
	g := &chosen[0]
	if g.Problem != "" {
		return fmt.Errorf("generator %s is not ready: %s", g.Name, g.Problem)
	}
	dir, err := os.MkdirTemp("", "vm-dataset-run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	scratch := filepath.Join(dir, "scratch")
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return err
	}
	runner := probe.New(0)
	o.Say("running %s", strings.Join(generator.Command(g, c.Samples, c.Seed, 0), " "))
	made, failed := runner.Make(ctx, generator.Request{Generator: g, Samples: c.Samples, Seed: c.Seed, Scratch: scratch})
	if ctx.Err() != nil {
		return failed
	}
	tried := &Tried{Generator: g.Name, Command: made.Command, To: c.To, CPU: made.CPU.Seconds(),
		Wall: made.Wall.Seconds(), PeakRSS: made.PeakRSS}
	if tried.NotKept, err = probe.Keep(made.Output, c.To); err != nil {
		return err
	}
	if failed != nil {
		if tried.Failure = failureOf(failed); tried.Failure == nil {
			return failed
		}
	}
	if tried.Samples, err = listSamples(made.Samples); err != nil {
		return err
	}
	if tried.Sheets, err = contract.SaveSheets(ctx, g, dir, made.Samples, c.To); err != nil {
		return err
	}
	return cmp.Or(o.Print(tried, tried.table), ui.ProblemIf(tried.Failure != nil, ""))
}

func listSamples(samples []sample.Sample) ([]TriedOne, error) {
	list := make([]TriedOne, len(samples))
	for i, s := range samples {
		one := &list[i]
		one.ID = s.ID
		for _, f := range s.Files {
			one.Files, one.Bytes = append(one.Files, f.Name), one.Bytes+f.Size
			if f.Name == "prompt.txt" {
				text, err := os.ReadFile(f.Path)
				if err != nil {
					return nil, err
				}
				one.Prompt = strings.TrimSpace(string(text))
			}
		}
	}
	return list, nil
}

// failureOf is what a worker's failure report would have, nil if the generator is not at fault.
func failureOf(err error) *TriedFailed {
	f := probe.Blame(err)
	if f == nil {
		return nil
	}
	policy := f.Cause.Policy()
	return &TriedFailed{Cause: f.Cause, Detail: f.Detail, Means: policy.Means, Remedy: policy.Remedy, ExitCode: f.ExitCode,
		Signal: f.Signal, Stdout: f.Stdout, Stderr: f.Stderr}
}

func (t *Tried) table(w io.Writer) {
	for _, s := range t.Samples {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.ID, ui.Plural(len(s.Files), "file"), ui.Size(s.Bytes),
			ui.Cut(strings.ReplaceAll(s.Prompt, "\n", " "), 80))
	}
	if len(t.Samples) > 0 {
		fmt.Fprintf(w, "files of a sample: %s\n", strings.Join(sample.Shape(t.Samples[0].Files), " "))
	}
	if f := t.Failure; f != nil {
		fmt.Fprintf(w, "%s: %s\n", f.Cause, f.Detail)
		for _, tail := range []struct{ what, text string }{{"stdout", f.Stdout}, {"stderr", f.Stderr}} {
			if strings.TrimSpace(tail.text) != "" {
				fmt.Fprintf(w, "the end of its %s:\n", tail.what)
				for line := range strings.Lines(tail.text) {
					fmt.Fprintf(w, "    %s\n", strings.TrimRight(line, "\n"))
				}
			}
		}
		fmt.Fprintf(w, "remedy: %s\n", f.Remedy)
	}
	if len(t.NotKept) > 0 {
		fmt.Fprintf(w, "not kept: %s\n", ui.Some(t.NotKept, 3))
	}
	fmt.Fprintf(w, "kept in %s", t.To)
	switch n := len(t.Sheets); {
	case n == 1:
		fmt.Fprintf(w, ", with %s", filepath.Base(t.Sheets[0]))
	case n > 1:
		fmt.Fprintf(w, ", with %s to %s", filepath.Base(t.Sheets[0]), filepath.Base(t.Sheets[n-1]))
	}
	fmt.Fprintf(w, "\n%.1f s of CPU, %.1f s, %s of memory\n", t.CPU, t.Wall, ui.Size(t.PeakRSS))
}
