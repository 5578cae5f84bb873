package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// DLQShowCmd shows one dead task.
type DLQShowCmd struct {
	ID string `arg:"" help:"Message id as dlq list, logs and receipts have it, which is that of the message it was first; its own id in the DLQ; or the first 8 characters of either."`
}

// Help is the long help.
func (*DLQShowCmd) Help() string {
	return `Shows the task, its failure report with the end of the generator's error output, and the command that runs the failed chunk by hand: in the environment of the local stack, if that has made one.

Examples:
  ops --stack dev dlq show 5fea7756-0ea4-451a-a703-a558b933e274`
}

// Shown is all that is known of a dead message.
type Shown struct {
	dead
	First  string         `json:"first_message_id"`
	Means  string         `json:"means"`
	Remedy string         `json:"remedy"`
	Report *store.Failure `json:"report,omitempty"` // nil if there is none
	Others []string       `json:"others,omitempty"` // keys of the reports of other chunks that failed beside it
	ByHand string         `json:"by_hand,omitempty"`
	Note   string         `json:"note,omitempty"` // on the command
	More   []string       `json:"more,omitempty"` // ids of further messages that the id stands for: a task dies in parts
}

// Run shows the message.
func (c *DLQShowCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store) error {
	var s *Shown
	err := q.EachDead(ctx, func(m queue.Message) error {
		if !names(c.ID, m.ID) && !names(c.ID, m.FirstID()) {
			return nil
		}
		if s != nil && m.ID != c.ID {
			s.More = append(s.More, m.ID)
			return nil
		}
		d := describe(m)
		s = &Shown{dead: d, First: d.FirstID(), Means: d.Cause.Policy().Means, Remedy: d.Cause.Policy().Remedy}
		if m.ID == c.ID {
			return queue.ErrEnough
		}
		return nil
	})
	if err != nil {
		return err
	}
	if s == nil {
		return ui.WithHint(fmt.Errorf("no message in the DLQ has the id %s", c.ID),
			"ops%s dlq list --each; another look may have it for up to two minutes", t.Flags())
	}
	if err := s.findReport(ctx, st); err != nil {
		return err
	}
	if s.Report != nil && len(s.Report.Command) > 0 {
		s.ByHand, s.Note = byHand(o.Flags, s.Report)
	}
	return o.Print(s, s.table)
}

// names reports whether what was typed means an id.
func names(typed, id string) bool {
	return typed == id || len(typed) >= 8 && strings.HasPrefix(id, typed)
}

// findReport reads the failure report of a dead message. One that SQS moved itself
// does not say where its report is, but deliveries before the last one may have
// written some: the last of those.
func (s *Shown) findReport(ctx context.Context, st *store.Store) error {
	key := s.Text(task.AttributeReport)
	var all []string
	if s.Task != nil {
		for o, err := range st.Failures(ctx, s.Task.Generator) {
			if err != nil {
				return err
			}
			all = append(all, o.Key)
		}
	}
	for last, i := 0, 0; s.Text(task.AttributeReport) == "" && i < len(all); i++ {
		receives, found := strings.CutPrefix(delivery(all[i]), task.SafeName(s.ID)+"-")
		if n, err := strconv.Atoi(receives); found && err == nil && n > last {
			key, last = all[i], n
		}
	}
	if key == "" {
		return nil
	}
	f, err := st.Failure(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	s.Report = &f
	for _, name := range all {
		if name != key && delivery(name) == delivery(key) {
			s.Others = append(s.Others, name)
		}
	}
	return nil
}

// delivery is the part of a failure report's key that says in which delivery of
// which message it was written.
func delivery(key string) string { return strings.TrimSuffix(path.Base(key), ".json") }

// byHand is the shell command that runs the failed chunk again, and what there is
// to say about it.
func byHand(g *target.Flags, f *store.Failure) (command, note string) {
	found, err := generator.Discover(g.Generators)
	if err != nil {
		found = nil
	}
	if index, err := generator.LoadIndex(filepath.Join(g.LocalDir, "generators")); err == nil {
		found = append(index.Generators, found...) // those with an environment first
	}
	output := filepath.Join(os.TempDir(), f.Generator+"_"+f.Name)
	argv := slices.Clone(f.Command)
	argv[len(argv)-1] = output
	i := slices.IndexFunc(found, func(g generator.Generator) bool { return g.Name == f.Generator && g.Problem == "" })
	if i < 0 {
		return shell(f.Generator, generator.ByHand(".", f.Seed), argv, output),
			fmt.Sprintf("%s is not in %s: run it in the folder of that generator", f.Generator, g.Generators)
	}
	here := found[i]
	switch {
	case here.Python == "":
		note = "it needs the packages of its requirements.txt: ops local up makes an environment with them, and then this shows how to use it"
	case f.Commit != "" && here.Commit != f.Commit:
		note = fmt.Sprintf("it failed at commit %.12s, here is %.12s", f.Commit, here.Commit)
	}
	if here.Python != "" {
		argv[0] = here.Python
	}
	return shell(here.Dir, generator.ByHand(here.Dir, f.Seed), argv, output), note
}

// shell writes a command in a folder and an environment for a shell.
func shell(dir string, environment, argv []string, output string) string {
	words := []string{"cd", dir, "&&", "mkdir", "-p", output, "&&", "env"}
	words = append(append(words, environment...), argv...)
	for i, w := range words {
		if w != "&&" {
			words[i] = quote(w)
		}
	}
	return strings.Join(words, " ")
}

// plainWord is a word that means itself to a shell.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./=:,+@%-]+$`)

// quote writes a word as a shell reads it.
func quote(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

func (s *Shown) table(w io.Writer) {
	pair := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	pair("message", "%s", s.ID)
	if s.First != s.ID {
		pair("it was first", "%s", s.First)
	}
	if len(s.More) > 0 {
		pair("more of that", "%s", strings.Join(s.More, " "))
	}
	pair("since", "%s (%s)", s.Sent.Local().Format("2006-01-02 15:04:05"), ago(s.Sent))
	pair("cause", "%s: %s", s.Cause, s.Means)
	if s.Detail != "" {
		pair("detail", "%s", ui.Cut(s.Detail, 500))
	}
	pair("what to do", "%s", s.Remedy)
	if s.Task != nil {
		pair("generator", "%s", s.Task.Generator)
		pair("samples", "%s", s.samples())
		pair("deliveries", "%s", s.receives())
	}
	pair("task", "%s", s.Body)
	for _, name := range slices.Sorted(maps.Keys(s.Attributes)) {
		switch a := s.Attributes[name]; {
		case slices.Contains([]string{task.AttributeCause, task.AttributeDetail, task.AttributeReceives,
			task.AttributeMessageID}, name):
		case len(a.Binary) > 0:
			pair("attribute", "%s (%s, base64) = %s", name, a.Type, ui.Cut(base64.StdEncoding.EncodeToString(a.Binary), 200))
		default:
			pair("attribute", "%s = %s", name, ui.Cut(a.Text, 200))
		}
	}
	if s.Report == nil {
		fmt.Fprintln(w, "\nthere is no failure report of it in the bucket")
		return
	}
	s.report(w)
}

// report shows what the failure report adds.
func (s *Shown) report(w io.Writer) {
	f := s.Report
	fmt.Fprintf(w, "\nthe failure report of samples %d to %d:\n", f.Start, f.End-1)
	if len(s.Others) > 0 {
		fmt.Fprintf(w, "(%s of the task failed beside them, and %s reports of their own in the bucket, such as %s)\n",
			ui.Plural(len(s.Others), "chunk"), map[bool]string{true: "has", false: "have"}[len(s.Others) == 1], s.Others[0])
	}
	pair := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	pair("seed", "%d (attempt %d)", f.Seed, f.Attempt)
	ended := fmt.Sprintf("exit status %d", f.ExitCode)
	if f.Signal != "" {
		ended = "signal: " + f.Signal
	}
	pair("it ended with", "%s, after %.1f s and %.1f s of CPU, at most %s of memory", ended, f.WallSeconds, f.CPUSeconds,
		ui.Size(f.PeakRSSBytes))
	if f.Commit != "" {
		pair("commit", "%s", f.Commit)
	}
	if f.Image != "" {
		pair("image", "%s", f.Image)
	}
	pair("command", "%s", strings.Join(f.Command, " "))
	for _, tail := range []struct{ name, text string }{{"standard output", f.Stdout}, {"standard error", f.Stderr}} {
		if text := strings.TrimRight(tail.text, "\n"); text != "" {
			fmt.Fprintf(w, "\nthe end of its %s:\n", tail.name)
			for line := range strings.Lines(text) {
				fmt.Fprintf(w, "  %s\n", ui.Printable(line))
			}
		}
	}
	if s.ByHand != "" {
		fmt.Fprintf(w, "\nto run it by hand:\n  %s\n", s.ByHand)
	}
	if s.Note != "" {
		fmt.Fprintf(w, "  (%s)\n", s.Note)
	}
}
