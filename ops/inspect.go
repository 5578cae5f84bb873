package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/contract"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/probe"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	decoding "github.com/vm-dataset/vm-dataset-pipeline/ops/video"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
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

type sampled struct {
	given bool
	n     int // 0: all
}

// UnmarshalText reads the flag.
func (s *sampled) UnmarshalText(text []byte) (err error) {
	s.given = true
	if string(text) == "all" {
		return nil
	}
	if s.n, err = strconv.Atoi(string(text)); err != nil || s.n < 1 {
		return fmt.Errorf("%.40q is no number of samples from 1, and not all", text)
	}
	return nil
}

// nearness is a flag whose value may be left out.
type nearness struct {
	given bool
	bits  int
}

// IsBool has kong not take the next argument for the value.
func (*nearness) IsBool() bool { return true }

// Decode reads the flag.
func (n *nearness) Decode(c *kong.DecodeContext) (err error) {
	n.given, n.bits = true, inspect.Near
	if c.Scan.Peek().Type != kong.FlagValueToken {
		return nil
	}
	text := c.Scan.Pop().String()
	if n.bits, err = strconv.Atoi(text); err != nil || n.bits < 0 || n.bits > 512 {
		return fmt.Errorf("%.40q is no number of bits from 0 to 512", text)
	}
	return nil
}

// deep finds hints in the files of a generator's samples. g is nil if no judge is wanted.
func (c *InspectCmd) deep(ctx context.Context, o *Output, st *store.Store, name string,
	g *generator.Generator) (inspect.Hints, error) {
	hints, deep := inspect.Hints{}, inspect.Deep{Store: st, Progress: o.Progress}
	if c.Videos.given {
		decoder, err := o.decoder(ctx, name)
		if err != nil {
			return nil, err
		}
		defer decoder.Close()
		found, err := deep.Videos(ctx, name, c.Videos.n, decoder)
		if err != nil {
			return nil, err
		}
		hints.Add(found)
	}
	if g != nil {
		found, scored, err := deep.Judge(ctx, g, c.Eval.n)
		if fault := probe.Blame(err); fault != nil {
			o.Say("%s is not scored: %s", name, fault)
			c.unscored = append(c.unscored, name)
			return hints, nil
		}
		if err != nil {
			return nil, err
		}
		o.Say("the judge of %s gave all points to %s of %s", name, ui.Count(scored-len(found)), ui.Plural(scored, "sample"))
		hints.Add(found)
	}
	return hints, nil
}

// judges are the generators whose judges are wanted, with their environments made. What has none is left out.
func (c *InspectCmd) judges(ctx context.Context, o *Output, names []string) (map[string]*generator.Generator, error) {
	if !c.Eval.given {
		return nil, nil
	}
	here, err := o.inventory().Folder()
	if err != nil {
		return nil, err
	}
	var judged []string
	for _, name := range names {
		at := slices.IndexFunc(here, func(g generator.Generator) bool { return g.Name == name })
		switch {
		case at < 0:
			o.Say("%s is not scored: it is not in %s", name, o.inventory().Generators)
		case !probe.HasJudge(&here[at]):
			o.Say("%s is not scored: it has no eval/verify.py", name)
		default:
			judged = append(judged, name)
		}
	}
	if len(judged) == 0 {
		return nil, ui.WithHint(fmt.Errorf("--eval: none of these generators has a judge"), "ops inspect without --eval")
	}
	ready, err := o.inventory().PrepareFolder(ctx, judged)
	if err != nil {
		return nil, err
	}
	found := map[string]*generator.Generator{}
	for i := range ready {
		if g := &ready[i]; g.Problem != "" {
			o.Say("%s is not scored: %s", g.Name, g.Problem)
			c.unscored = append(c.unscored, g.Name)
		} else {
			found[g.Name] = g
		}
	}
	return found, nil
}

// decoder decodes videos in the environment of a generator if that can, or in another one on this machine.
func (o *Output) decoder(ctx context.Context, name string) (*decoding.Decoder, error) {
	var pythons []string
	if index, err := generator.LoadIndex(filepath.Join(o.LocalDir, "generators")); err == nil {
		if g, err := index.Find(name); err == nil {
			pythons = append(pythons, g.Python)
		}
	}
	pythons = append(pythons, os.Getenv("EXPORT_PYTHON"))
	for _, library := range []string{"av", "cv2", "imageio_ffmpeg"} {
		pythons = append(pythons, decoding.Pythons(o.LocalDir, library)...)
	}
	d, err := decoding.FindDecoder(ctx, pythons...)
	if err != nil {
		return nil, ui.WithHint(fmt.Errorf("nothing here can decode videos: %w", err),
			"install ffmpeg, or PyAV with: python3 -m pip install av")
	}
	return d, nil
}

type nearReport struct {
	Generator string          `json:"generator"`
	Samples   int             `json:"samples"` // whose pictures were compared
	Near      int             `json:"near"`    // that are near another one
	Groups    []inspect.Group `json:"groups"`
	Sheets    []string        `json:"sheets,omitempty"`
}

func (c *InspectCmd) near(ctx context.Context, o *Output, st *store.Store, names []string) error {
	deep := &inspect.Deep{Store: st, Progress: o.Progress}
	reports := []*nearReport{}
	for _, name := range names {
		looks, err := deep.Looks(ctx, name, 0)
		if err != nil {
			return err
		}
		if len(looks) == 0 {
			continue
		}
		r := &nearReport{Generator: name, Samples: len(looks), Groups: inspect.Groups(looks, c.Near.bits)}
		for _, g := range r.Groups {
			r.Near += len(g.Samples)
		}
		if r.Sheets, err = c.sheets(ctx, deep, r); err != nil {
			return err
		}
		reports = append(reports, r)
	}
	return o.Print(reports, func(w io.Writer) { printNear(w, reports) })
}

// Bounds of the sheets of a generator.
const (
	mostSheets = 4
	mostInRow  = 6 // samples of a group
)

// sheets draws the largest groups of a generator: a row has the first and final frames of a group's samples.
func (c *InspectCmd) sheets(ctx context.Context, deep *inspect.Deep, r *nearReport) (files []string, err error) {
	if c.To == "" || len(r.Groups) == 0 {
		return nil, nil
	}
	if err := os.MkdirAll(c.To, 0o755); err != nil {
		return nil, err
	}
	groups := r.Groups[:min(len(r.Groups), mostSheets*contract.PerSheet)]
	rows, row, indices := make([]contract.Row, len(groups)), map[string]int{}, []int{}
	for i, g := range groups {
		rows[i].Title = fmt.Sprintf("%s, at most %d bits apart:", ui.Plural(len(g.Samples), "sample"), g.Furthest)
		for _, s := range g.Samples[:min(len(g.Samples), mostInRow)] {
			row[s.ID], indices = i, append(indices, s.Index)
			rows[i].Title += " " + s.ID
		}
	}
	err = deep.Pictures(ctx, r.Generator, indices, func(id string, files []sample.File) error {
		for _, f := range files {
			if err := rows[row[id]].AddFile(f.Path); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for page := range slices.Chunk(rows, contract.PerSheet) {
		file := filepath.Join(c.To, fmt.Sprintf("near-%s-%d.png", r.Generator, len(files)+1))
		if err := contract.SavePicture(file, contract.Sheet(page)); err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

func printNear(w io.Writer, reports []*nearReport) {
	fmt.Fprintln(w, "GENERATOR\tSAMPLES\tBITS\tIDS")
	const shown = 3
	for _, r := range reports {
		for _, g := range r.Groups {
			var ids []string
			for _, s := range g.Samples[:min(len(g.Samples), shown)] {
				ids = append(ids, s.ID)
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%s%s\n", r.Generator, ui.Count(len(g.Samples)), g.Furthest, strings.Join(ids, ", "),
				ui.More(len(g.Samples)-shown))
		}
	}
	for _, r := range reports {
		fmt.Fprintf(w, "%s: %s of %s near another one, in %s\n", r.Generator, ui.Count(r.Near),
			ui.Plural(r.Samples, "sample"), ui.Plural(len(r.Groups), "group"))
		for _, file := range r.Sheets {
			fmt.Fprintf(w, "    %s\n", file)
		}
	}
}
