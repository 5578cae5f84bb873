package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// GeneratorsCmd shows, fetches and tries out the generators.
type GeneratorsCmd struct {
	List  GeneratorsListCmd  `cmd:"" help:"List every generator, and whether it is ready on this machine."`
	Sync  GeneratorsSyncCmd  `cmd:"" help:"Fetch the generators of the catalogue at their commits."`
	Lock  GeneratorsLockCmd  `cmd:"" help:"Resolve what generators require into locks, once."`
	Check GeneratorsCheckCmd `cmd:"" help:"Find out whether generators keep the contract, and what they cost."`
	Run   GeneratorsRunCmd   `cmd:"" help:"Run a generator as a worker does, and keep what it makes."`
}

// GeneratorsListCmd lists the generators.
type GeneratorsListCmd struct{}

// Help is the long help.
func (*GeneratorsListCmd) Help() string {
	return `Every folder in the generators' folder with examples/generate.py is a generator; catalog.yaml there names more, which 'ops generators sync' fetches. One is ready when its Python environment is made, which the local stack does on first use.

A generator without --seed works, but nothing keeps two of its chunks from coming out alike. FILES are those that its samples must have beyond first_frame.png, prompt.txt and a ground_truth video. --json has the packages, too.

Examples:
  ops generators list
  ops generators list --json | jq '.[] | select(.ready | not) | .name'`
}

// Known is one generator of the list.
type Known struct {
	generator.Generator
	Pin     string `json:"pin,omitempty"` // commit that the catalogue names
	Fetched bool   `json:"fetched"`       // its folder is there
	Ready   bool   `json:"ready"`
}

// Run lists.
func (*GeneratorsListCmd) Run(o *Output) error {
	list, err := knownGenerators(o.Flags)
	if err != nil {
		return err
	}
	return o.Print(list, func(w io.Writer) {
		fmt.Fprintln(w, "GENERATOR\tSTATE\tCOMMIT\tSEED\tCHUNK\tREPOSITORY\tENVIRONMENT\tFLAGS\tFILES")
		for _, k := range list {
			state := "ready"
			if !k.Ready {
				state = ui.Cut(k.Problem, 60)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.Name, state, k.commit(), k.seed(), k.chunk(), cmp.Or(k.Repository, "-"),
				cmp.Or(cut12(k.Environment), "-"), k.flags(), k.files())
		}
	})
}

// notMade is no reason to leave a generator out: a run makes it.
const notMade = "its environment is not made yet"

// knownGenerators returns every generator of the folder and the catalogue, by name.
func knownGenerators(g *target.Flags) ([]Known, error) {
	found, err := discover(g)
	if err != nil {
		return nil, err
	}
	entries, err := generator.ReadCatalogue(g.Generators)
	if err != nil {
		return nil, err
	}
	built := map[string]generator.Generator{}
	index, err := generator.LoadIndex(filepath.Join(g.LocalDir, "generators"))
	switch {
	case err == nil:
		for _, b := range index.Generators {
			built[b.Name] = b
		}
	case !errors.Is(err, fs.ErrNotExist) && index != nil:
		return nil, err
	}
	list := []Known{}
	for _, f := range found {
		b, there := built[f.Name]
		k := Known{Generator: f, Pin: entries[f.Name].Commit, Fetched: true}
		delete(entries, f.Name)
		switch {
		case f.Problem != "":
		case !there || !slices.Equal(b.Requirements, f.Requirements):
			k.Problem = notMade
		default:
			k.Environment, k.Lock, k.Python, k.Problem = b.Environment, b.Lock, b.Python, b.Problem
			k.Ready = b.Problem == ""
			if f.Flags.From == generator.FromContract && b.Commit == f.Commit {
				k.Flags = b.Flags
			}
		}
		list = append(list, k)
	}
	for name, e := range entries {
		k := Known{Generator: generator.Generator{Name: name, Repository: e.Repository, ChunkSize: e.ChunkSize, Licence: e.Licence}, Pin: e.Commit}
		switch {
		case e.Skip != "":
			k.Problem = "left out: " + e.Skip
		case e.Repository != "":
			k.Problem = "not fetched yet"
		default:
			continue // it only says what would hold if it were there
		}
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b Known) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// commit is the commit that is there, short, and whether it is not the catalogue's.
func (k Known) commit() string {
	hash, changed := strings.CutSuffix(k.Commit, "-dirty")
	text := cut12(cmp.Or(hash, k.Pin, "-"))
	if changed {
		text += "-dirty"
	}
	if k.Commit != "" && k.Pin != "" && hash != k.Pin {
		text += " (pin " + cut12(k.Pin) + ")"
	}
	return text
}

func cut12(hash string) string { return hash[:min(len(hash), 12)] }

func (k Known) seed() string {
	switch {
	case !k.Fetched:
		return "-"
	case k.Flags.Seed && k.Flags.From == generator.FromContract:
		return "assumed"
	case k.Flags.Seed:
		return "yes"
	}
	return "no: duplicates are likely"
}

// flags are those that generators do not have alike.
func (k Known) flags() string {
	if !k.Fetched {
		return "-"
	}
	list := []string{cmp.Or(k.Flags.Output, "--output")}
	if k.Flags.StartIndex {
		list = append(list, "--start-index")
	}
	if k.Flags.NoVideo != "" {
		list = append(list, k.Flags.NoVideo)
	}
	return strings.Join(append(list, k.ExtraArgs...), " ")
}

// files are what its samples must have beyond what those of all must.
func (k Known) files() string {
	list := k.Required
	if k.Videoless {
		list = append([]string{"no video"}, list...)
	}
	return cmp.Or(strings.Join(list, ", "), "-")
}

func (k Known) chunk() string {
	if k.ChunkSize == 0 {
		return "-"
	}
	return fmt.Sprint(k.ChunkSize)
}
