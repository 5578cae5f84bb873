package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dlq"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type DLQShowCmd struct {
	ID string `arg:"" help:"Message id from dlq list, logs or receipts; the message's own id in the DLQ; or the first 8 characters of either."`
}

func (*DLQShowCmd) Help() string {
	return `Shows the task, its failure report with the end of the generator's stderr, and a command that runs the failed chunk by hand, in the environment of the local stack if there is one.

Examples:
  ops --stack dev dlq show 5fea7756-0ea4-451a-a703-a558b933e274`
}

func (c *DLQShowCmd) Run(ctx context.Context, o *Output, t *target.Target, q *queue.Client, st *store.Store) error {
	s, err := dlq.Find(ctx, q, st, o.Flags, c.ID)
	if err != nil {
		return err
	}
	if s == nil {
		return ui.WithHint(fmt.Errorf("no message in the DLQ has the id %s", c.ID),
			"ops%s dlq list --each; another reader may have received it, for up to two minutes", t.Flags())
	}
	return o.Print(s, func(w io.Writer) {
		printDetails(w, s)
		printFailure(w, s)
	})
}

func printDetails(w io.Writer, s *dlq.Details) {
	pair := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	pair("message", "%s", s.ID)
	if s.First != s.ID {
		pair("first message", "%s", s.First)
	}
	if len(s.More) > 0 {
		pair("more parts", "%s", strings.Join(s.More, " "))
	}
	pair("since", "%s (%s)", s.Sent.Local().Format("2006-01-02 15:04:05"), ago(s.Sent))
	pair("cause", "%s: %s", s.Cause, s.Means)
	if s.Detail != "" {
		pair("detail", "%s", ui.Cut(s.Detail, 500))
	}
	pair("what to do", "%s", s.Remedy)
	if s.Task != nil {
		pair("generator", "%s", s.Task.Generator)
		pair("samples", "%s", s.Samples())
		pair("deliveries", "%s", deliveries(s.Message))
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
}

func printFailure(w io.Writer, s *dlq.Details) {
	f := s.Report
	if f == nil {
		fmt.Fprintln(w, "\nthere is no failure report of it in the bucket")
		return
	}
	fmt.Fprintf(w, "\nfailure report of samples %d to %d:\n", f.Start, f.End-1)
	if len(s.Others) > 0 {
		fmt.Fprintf(w, "(%s of the task failed, too, and %s a report in the bucket, such as %s)\n",
			ui.Plural(len(s.Others), "chunk"), map[bool]string{true: "has", false: "have"}[len(s.Others) == 1], s.Others[0])
	}
	pair := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	pair("seed", "%d (attempt %d)", f.Seed, f.Attempt)
	ended := fmt.Sprintf("exit status %d", f.ExitCode)
	if f.Signal != "" {
		ended = "signal: " + f.Signal
	}
	pair("ended with", "%s, after %.1f s and %.1f s of CPU, at most %s of memory", ended, f.WallSeconds, f.CPUSeconds,
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
