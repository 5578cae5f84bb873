package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/posener/complete"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/catalogue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type GeneratorsSyncCmd struct {
	Names    []string `arg:"" optional:"" name:"name" help:"Only these generators. Default: all of the catalogue." predictor:"entry"`
	Org      string   `help:"Add the generators of this GitHub organisation to the catalogue." placeholder:"NAME"`
	Update   bool     `help:"Fetch the newest commits, write them to catalog.lock, and show what that changes."`
	Parallel int      `help:"Repositories fetched at once." short:"j" default:"8"`
}

func (*GeneratorsSyncCmd) Help() string {
	return `catalog.yaml in the generators' folder names a repository for each generator: owner/name on GitHub, a URL, or a path; catalog.lock has the commits. Sync fetches only those that are not there at that commit, one commit deep; run it again after an interruption. A generator without a commit gets the newest. Those that download data or need Blender are fetched only if they are named.

It never touches a folder with changes, commits or branches of its own, but names it. --update writes the newest commit of a generator to catalog.lock after it was fetched. --org asks the GitHub API for an organisation's repositories and adds those with examples/generate.py to catalog.lock; an entry in catalog.yaml with 'skip: REASON' is left out. Sync never changes catalog.yaml.

It takes a token from GITHUB_TOKEN, GH_TOKEN or 'gh auth token'; without one GitHub answers 60 requests an hour. Git uses your own settings for proxies and credentials. GITHUB_API_URL and GITHUB_SERVER_URL name another server.

Exit status 2: some could not be fetched.

Examples:
  ops generators sync
  ops generators sync --org vm-dataset
  ops generators sync O-1_color_mixing_data_generator --update`
}

func (c *GeneratorsSyncCmd) Validate() error {
	if c.Org != "" && strings.ContainsAny(c.Org, "/?#") {
		return ui.Usage("--org is %q, it must be the name of an organisation", c.Org)
	}
	return between("--parallel", &c.Parallel, 1, 64)
}

func (c *GeneratorsSyncCmd) Run(ctx context.Context, o *Output) error {
	if _, err := os.Stat(o.Generators); err != nil {
		return ui.WithHint(err, "run ops in the checkout, or name the folder with --generators-dir")
	}
	entries, err := generator.ReadCatalogue(o.Generators)
	if err != nil {
		return err
	}
	names, add, err := c.choose(ctx, o, entries)
	if err != nil {
		return err
	}
	done := 0
	s := catalogue.Syncer{Root: o.Generators, Server: os.Getenv("GITHUB_SERVER_URL"), Update: c.Update,
		Parallel: c.Parallel, Done: func(r catalogue.Result) {
			done++
			o.Progress("generators", done, len(names)+len(add))
			if r.State == catalogue.Failed {
				o.Say("%s: %s", r.Name, r.Reason)
			}
		}}
	results, err := s.Sync(ctx, names, add)
	if results == nil {
		return err
	}
	return cmp.Or(err, c.printResults(o, results))
}

// choose returns the generators of the catalogue to fetch, and the repositories of
// the organisation that it does not have.
func (c *GeneratorsSyncCmd) choose(ctx context.Context, o *Output, entries map[string]generator.Entry) (names []string,
	add []catalogue.Repository, err error) {
	unknown := map[string]bool{}
	for _, name := range c.Names {
		if _, there := entries[name]; !there {
			unknown[name] = true
		} else if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(c.Names) == 0 {
		names = slices.Sorted(maps.Keys(entries))
		all := len(names)
		names = slices.DeleteFunc(names, func(name string) bool {
			_, err := os.Lstat(filepath.Join(o.Generators, name))
			return err != nil && entries[name].OnRequest() != ""
		})
		if left := all - len(names); left > 0 {
			o.Say("%s not fetched unless named: ops generators list says why", ui.Plural(left, "generator"))
		}
	}
	if c.Org != "" {
		github := catalogue.GitHub{API: os.Getenv("GITHUB_API_URL"), Token: catalogue.FindToken(ctx)}
		found, err := github.Repositories(ctx, c.Org)
		if err != nil {
			return nil, nil, err
		}
		for _, r := range found {
			e, there := entries[r.Name]
			switch {
			case there && e.Repository != r.FullName && e.Skip == "":
				o.Say("note: %s stays the one of %s", r.Name, cmp.Or(e.Repository, "this repository"))
			case !there && (len(c.Names) == 0 || unknown[r.Name]):
				add = append(add, r)
				delete(unknown, r.Name)
			}
		}
		o.Say("%s: %s, %d new", c.Org, ui.Plural(len(found), "candidate"), len(add))
	}
	for name := range unknown {
		if err := task.CheckName(name); err != nil {
			return nil, nil, ui.Usage("generator %v", err)
		}
		return nil, nil, ui.WithHint(&generator.UnknownError{Name: name,
			Nearest: generator.Nearest(name, slices.Sorted(maps.Keys(entries)))}, "ops generators list")
	}
	return names, add, nil
}

func (c *GeneratorsSyncCmd) printResults(o *Output, results []catalogue.Result) error {
	counts := map[catalogue.State]int{}
	for _, r := range results {
		counts[r.State]++
		for _, note := range r.Notes {
			o.Say("note: %s: %s", r.Name, note)
		}
	}
	err := o.Print(results, func(w io.Writer) {
		for _, r := range results {
			switch r.State {
			case catalogue.There, catalogue.Kept, catalogue.Unmet:
			case catalogue.Failed:
				fmt.Fprintf(w, "%s\t%s\n", r.Name, r.State) // the reason was printed
			case catalogue.Skipped:
				fmt.Fprintf(w, "%s\t%s\t%s\n", r.Name, r.State, r.Reason)
			default:
				fmt.Fprintf(w, "%s\t%s\t%s\n", r.Name, r.State, change(r))
			}
		}
	})
	var parts []string
	for _, s := range []catalogue.State{catalogue.There, catalogue.Fetched, catalogue.Moved, catalogue.Added,
		catalogue.Kept, catalogue.Skipped, catalogue.Failed, catalogue.Unmet} {
		if counts[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[s], s))
		}
	}
	o.Say("%s: %s", ui.Plural(len(results), "generator"), cmp.Or(strings.Join(parts, ", "), "none"))
	if failed := counts[catalogue.Failed]; err == nil && failed > 0 {
		err = ui.WithHint(ui.Problem("%d of %s could not be fetched", failed, ui.Plural(len(results), "generator")),
			"fix the problems above, then the same command: it fetches only these")
	}
	return err
}

func change(r catalogue.Result) string {
	text := ui.Short(r.Commit)
	if r.Before != "" {
		text = ui.Short(r.Before) + ".." + text
	}
	switch {
	case r.Commits > 0:
		text += ", " + ui.Plural(r.Commits, "commit")
	case r.Commits < 0:
		text += ", not its descendant"
	}
	return text
}

// predictEntries completes names of the catalogue in the folder where ops runs.
var predictEntries = complete.PredictFunc(func(complete.Args) []string {
	entries, _ := generator.ReadCatalogue(generator.DefaultRoot)
	return slices.Sorted(maps.Keys(entries))
})
