package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// GeneratorsCmd shows the generators.
type GeneratorsCmd struct {
	List GeneratorsListCmd `cmd:"" help:"List every generator found, and whether it is ready on this machine."`
}

// GeneratorsListCmd lists the generators.
type GeneratorsListCmd struct{}

// Help is the long help.
func (*GeneratorsListCmd) Help() string {
	return `Every folder in the generators' folder with examples/generate.py is a generator. It is ready when its Python environment is made, which the local stack does on first use.`
}

// Known is one generator of the list.
type Known struct {
	generator.Generator
	Ready bool `json:"ready"`
}

// Run lists.
func (*GeneratorsListCmd) Run(o *Output) error {
	found, err := discover(o.Globals)
	if err != nil {
		return err
	}
	built := map[string]generator.Generator{}
	index, err := generator.LoadIndex(filepath.Join(o.LocalDir, "generators"))
	switch {
	case err == nil:
		for _, g := range index.Generators {
			built[g.Name] = g
		}
	case !errors.Is(err, fs.ErrNotExist) && index != nil:
		return err
	}
	list := []Known{}
	for _, g := range found {
		b, there := built[g.Name]
		k := Known{Generator: g}
		switch {
		case g.Problem != "":
		case !there:
			k.Problem = "its environment is not made yet"
		default:
			k.Environment, k.Python, k.Problem = b.Environment, b.Python, b.Problem
			k.Ready = b.Problem == ""
		}
		list = append(list, k)
	}
	return o.Print(list, func(w io.Writer) {
		fmt.Fprintln(w, "GENERATOR\tSTATE\tENVIRONMENT\tFLAGS\tREQUIRED FILES")
		for _, k := range list {
			state := "ready"
			if !k.Ready {
				state = cut(k.Problem, 60)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", k.Name, state, k.Environment, k.flags(), strings.Join(k.files(), " "))
		}
	})
}

func (k Known) flags() string {
	flags := []string{"--num-samples"}
	if k.Flags.Seed {
		flags = append(flags, "--seed")
	}
	if k.Flags.StartIndex {
		flags = append(flags, "--start-index")
	}
	return strings.Join(append(flags, k.Flags.Output), " ")
}

func (k Known) files() []string {
	files := []string{"first_frame.png", "prompt.txt"}
	if !k.Videoless {
		files = append(files, "ground_truth.*")
	}
	return append(files, k.Required...)
}
