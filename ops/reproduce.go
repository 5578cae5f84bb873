package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// ReproduceCmd makes a committed sample again and compares.
type ReproduceCmd struct {
	inDataset
	Generator string `arg:"" help:"Generator of the sample." predictor:"generator"`
	Index     int    `arg:"" help:"Index of the sample."`
	To        string `help:"Folder in which to keep what was made, as DIR/<sample>/." type:"path" placeholder:"DIR"`
	Here      bool   `help:"Run the generator of this machine, also where the receipt names an image."`
}

// Help is the long help.
func (*ReproduceCmd) Help() string {
	return `Runs the command of the sample's receipt once more, with the environment, the working folder and the sandbox that a worker gives it, and compares the sample's files with the hashes in the receipt. A sample that was repaired is made by its repair's command.

Where the receipt names the image of its worker and docker has that image, the generator of the image is run; else the one of this machine, in the environment that the receipt names: made from just its lock, whatever 'generators/locks' has by now, and from its version of Python, if that is on the PATH or uv can bring it. Locks are found by their hash: in the generators' folder, in its git history, and in the bucket, where 'ops submit' puts them. The workers of a local stack keep the environments that they have.

What is not as the receipt names it is told: commit, lock, Python, platform, image. When files differ, the generator is run a second time. If the two runs differ from each other, the generator is not deterministic, and no machine would bring the sample back.

Exit status 0: the same bytes. 2: something differs.

Examples:
  ops --stack dev reproduce maze-task-data-generator 4711
  ops --stack local reproduce chess-task-data-generator 12 --to again --json`
}

// Validate checks the arguments.
func (c *ReproduceCmd) Validate() error {
	if c.Index < 0 || c.Index >= task.MaxIndex {
		return ui.Usage("the index is %d, it must be from 0 to %d", c.Index, task.MaxIndex-1)
	}
	return nil
}

// Reproduction is what reproduce prints.
type Reproduction struct {
	Generator      string     `json:"generator"`
	Index          int        `json:"index"`
	ID             string     `json:"id"`
	Receipt        string     `json:"receipt"`
	Command        []string   `json:"command"`
	In             string     `json:"in"` // the image, or "this machine"
	Commit         string     `json:"commit,omitempty"`
	CommitHere     string     `json:"commit_here,omitempty"`
	Equal          bool       `json:"equal"`
	Files          []Compared `json:"files"`
	Deterministic  *bool      `json:"deterministic,omitempty"`   // known when it had to be run twice
	OnlyTimestamps bool       `json:"only_timestamps,omitempty"` // nothing else differs, and that in metadata
	// what is not as the receipt names it: commit, lock, Python, platform, image
	Others []string `json:"others,omitempty"`
	Notes  []string `json:"notes,omitempty"`
	To     string   `json:"to,omitempty"`
}

// Compared is one file of a sample, as the receipt has it and as it was made again.
type Compared struct {
	Name    string   `json:"name"`
	Verdict string   `json:"verdict"` // equal, differs, missing (not made again), new (not in the receipt)
	Was     string   `json:"was,omitempty"`
	Is      string   `json:"is,omitempty"`     // SHA-256
	Varies  bool     `json:"varies,omitempty"` // it differs between two runs here as well
	Fields  []string `json:"fields,omitempty"` // of a JSON file, that differ
}

// Run reproduces.
func (c *ReproduceCmd) Run(ctx context.Context, o *Output, t *target.Target, st *store.Store) error {
	receipt, was, err := dataset.Find(ctx, st, c.Generator, c.Index)
	if errors.Is(err, store.ErrNotFound) {
		return c.unknown(ctx, t, st)
	}
	if err != nil {
		return err
	}
	r := &rerun{receipt: receipt, was: was, store: st}
	p := &Reproduction{Generator: c.Generator, Index: c.Index, ID: was.ID, Receipt: receipt.ReadFrom,
		Command: receipt.Command, Commit: receipt.Commit}
	if err := c.choose(ctx, o, r, p); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "vm-dataset-reproduce-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	o.Say("running %s in %s", strings.Join(receipt.Command, " "), p.In)
	first, err := r.run(ctx, filepath.Join(scratch, "1"))
	if err != nil {
		return err
	}
	p.Files = compare(was, first)
	p.Equal = !slices.ContainsFunc(p.Files, func(f Compared) bool { return f.Verdict != "equal" })
	if !p.Equal {
		o.Say("something differs; running it a second time")
		second, err := r.run(ctx, filepath.Join(scratch, "2"))
		if err != nil {
			return err
		}
		if err := r.explain(ctx, p, first, second); err != nil {
			return err
		}
	}
	if c.To != "" {
		if p.To, err = keep(first, c.To); err != nil {
			return err
		}
	}
	if err := o.Print(p, p.table); err != nil {
		return err
	}
	if !p.Equal {
		return ui.Problem("")
	}
	return nil
}

// unknown says what there is where the sample is not.
func (c *ReproduceCmd) unknown(ctx context.Context, t *target.Target, st *store.Store) error {
	there, err := st.Folders(ctx, st.Dataset().Prefix(task.ReceiptKind))
	if err != nil {
		return err
	}
	if !slices.Contains(there, c.Generator) {
		return ui.WithHint(&generator.UnknownError{Name: c.Generator, Nearest: generator.Nearest(c.Generator, there)},
			"ops%s results list%s", t.Flags(), t.In())
	}
	return ui.WithHint(fmt.Errorf("sample %d of %s is not committed", c.Index, c.Generator), "ops%s results list%s",
		t.Flags(), t.In())
}

// choose decides where the generator runs.
func (c *ReproduceCmd) choose(ctx context.Context, o *Output, r *rerun, p *Reproduction) error {
	if image := r.receipt.Image; image != "" && !c.Here {
		found, err := findImage(ctx, image)
		switch {
		case err != nil:
			p.Notes = append(p.Notes, fmt.Sprintf("the receipt's image cannot be run here: %v", err))
		default:
			i := slices.IndexFunc(found.Generators, func(g generator.Generator) bool { return g.Name == c.Generator })
			if i < 0 {
				return fmt.Errorf("image %s has no generator %s", image, c.Generator)
			}
			r.generator, r.image, p.In, p.CommitHere = &found.Generators[i], found, image, found.Generators[i].Commit
		}
	}
	if r.generator == nil {
		lock, err := o.inventory().FindLock(ctx, r.store, r.receipt)
		if err != nil {
			return err
		}
		if r.generator, err = local.Remake(ctx, o.LocalDir, o.Generators, c.Generator, lock, r.receipt.Python,
			func(line string) { o.Say("%s", line) }); err != nil {
			return err
		}
		p.In, p.CommitHere = "this machine", r.generator.Commit
	}
	r.differences(p)
	return nil
}

// differences says which of the things that the receipt names are others here.
func (r *rerun) differences(p *Reproduction) {
	image := ""
	if r.image != nil {
		image = r.receipt.Image
	}
	for _, is := range []struct{ what, was, here, why string }{
		{"commit", r.receipt.Commit, r.generator.Commit, ""},
		{"lock", r.receipt.Lock, r.generator.Lock, ""},
		{"Python", r.receipt.Python, r.generator.Version, ": that is not on the PATH, and uv could not bring it"},
		{"platform", r.receipt.Platform, r.generator.Platform, ""},
		{"image", r.receipt.Image, image, ""},
	} {
		if is.was == is.here {
			continue
		}
		p.Others = append(p.Others, is.what)
		p.Notes = append(p.Notes, fmt.Sprintf("the receipt's %s is %s, this one is %s%s", is.what, cmp.Or(is.was, "none"),
			cmp.Or(is.here, "none"), is.why))
	}
}

// findImage looks for an image where there is docker at all.
func findImage(ctx context.Context, image string) (*local.Image, error) {
	if _, err := exec.LookPath("docker"); err != nil {
		return nil, errors.New("there is no docker on the PATH")
	}
	return local.FindImage(ctx, image)
}

// rerun makes the samples of a receipt again.
type rerun struct {
	store     *store.Store
	receipt   store.Receipt
	was       store.ReceiptSample
	generator *generator.Generator
	image     *local.Image // nil for this machine
}

// run makes them in a new folder and returns the one that is asked for.
func (r *rerun) run(ctx context.Context, dir string) (sample.Sample, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return sample.Sample{}, err
	}
	samples, offset := r.receipt.Made(), r.was.Index-r.receipt.ChunkStart
	if r.receipt.Indices != nil {
		offset = slices.Index(r.receipt.Indices, r.was.Index)
	}
	request := generator.Request{Generator: r.generator, Samples: samples, Seed: r.receipt.Seed,
		StartIndex: r.receipt.ChunkStart, Command: r.receipt.Command, Scratch: dir}
	run := generator.Run
	if r.image != nil {
		run = r.image.Rerun
	}
	result, err := run(ctx, request)
	if err != nil {
		if f, ok := errors.AsType[*generator.Failure](err); ok && f.Stderr != "" {
			return sample.Sample{}, fmt.Errorf("%w: it said %s", err, strings.TrimSpace(f.Stderr))
		}
		return sample.Sample{}, err
	}
	g := r.generator
	_, made, err := sample.Collect(result.Output, samples, []sample.Place{{Offset: offset, Index: r.was.Index}},
		sample.Rules{Required: g.Required, Videoless: g.Videoless, FilesVary: g.FilesVary})
	if err != nil {
		return sample.Sample{}, fmt.Errorf("what it made cannot be compared: %w", err)
	}
	return made[0], nil
}

// keep copies a sample to a folder, where it must not be yet.
func keep(s sample.Sample, to string) (string, error) {
	dir := filepath.Join(to, s.ID)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("keep the sample: %w", err)
	}
	for _, f := range s.Files {
		data, err := os.ReadFile(f.Path)
		file := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(file), 0o755)
		}
		if err == nil {
			err = atomicfile.Write(file, data)
		}
		if err != nil {
			return "", err
		}
	}
	return dir, nil
}

func (p *Reproduction) table(w io.Writer) {
	fmt.Fprintln(w, "FILE\tWAS\tIS\t")
	for _, f := range p.Files {
		verdict := f.Verdict
		if f.Varies {
			verdict += ", also between two runs"
		}
		if len(f.Fields) > 0 {
			verdict += ": " + strings.Join(f.Fields, ", ")
		}
		fmt.Fprintf(w, "%s\t%.12s\t%.12s\t%s\n", f.Name, f.Was, f.Is, verdict)
	}
	for _, note := range p.Notes {
		fmt.Fprintf(w, "note: %s\n", note)
	}
	if p.To != "" {
		fmt.Fprintf(w, "kept in %s\n", p.To)
	}
	fmt.Fprintf(w, "%s of %s: %s\n", p.ID, p.Generator, p.verdict())
}

func (p *Reproduction) verdict() string {
	switch {
	case p.Equal:
		return "equal"
	case p.OnlyTimestamps:
		return "differs in timestamps of its metadata only; the generator writes the time"
	case p.Deterministic != nil && !*p.Deterministic:
		return "differs; the generator is not deterministic: two runs of one command differ here"
	}
	if p.Others != nil {
		return "differs; two runs agree here, where this is not as in the receipt: " + strings.Join(p.Others, ", ")
	}
	return "differs; two runs agree here, with all that the receipt names: what it does not name has changed, as the generator's files, the machine's libraries or its fonts"
}
