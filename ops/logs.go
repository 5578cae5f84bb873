package main

import (
	"bufio"
	"context"
	"fmt"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/logs"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

type LogsCmd struct {
	Task      []string `help:"Only this task: a message id, as dlq list and queue peek show it, or GENERATOR:INDEX for the tasks of that sample; may be repeated." placeholder:"ID"`
	Generator []string `help:"Only this generator; may be repeated." placeholder:"NAME" predictor:"generator"`
	Dataset   string   `help:"Only tasks of this dataset." env:"OPS_DATASET" placeholder:"NAME"`
	Since     moment   `help:"Start: a span back from now (15m, 36h, 3d) or a time (2026-08-01T10:00:00Z)." default:"1h" placeholder:"TIME"`
	Follow    bool     `help:"Continue with new lines until Ctrl-C." short:"f"`

	filter logs.Filter
}

func (*LogsCmd) Help() string {
	return `The lines of all workers, oldest first: from the stack's log group, or from the log files of the local stack, even if it is down. With --task, Lambda's own lines of the task's invocations are included; they report timeouts and memory. A message id also finds the messages that the worker made of that one: the rest of a task that ran out of time.

With --json each line is an object: the worker's as it wrote it (including metrics), any other with time, source and message.

--follow polls every 2 seconds. It shows each line once, and misses a line only if that reaches the log group more than two minutes late.

Examples:
  ops --stack dev logs --since 15m --follow
  ops --stack dev logs --task 059f36b4-87a3-44ab-83d2-661975830a7d
  ops --stack dev logs --task maze-task-data-generator:4711 --since 24h
  ops --stack local logs --generator maze-task-data-generator --json | jq 'select(.level == "ERROR")'`
}

func (c *LogsCmd) Validate() error {
	c.filter = logs.Filter{Generators: c.Generator, Dataset: c.Dataset}
	if c.Dataset != "" {
		if err := task.CheckName(c.Dataset); err != nil {
			return ui.Usage("--dataset %v", err)
		}
	}
	for _, g := range c.Generator {
		if err := task.CheckName(g); err != nil {
			return ui.Usage("--generator %v", err)
		}
	}
	for _, text := range c.Task {
		t, err := logs.ParseTask(text)
		if err != nil {
			return ui.Usage("--task %v", err)
		}
		c.filter.Tasks = append(c.filter.Tasks, t)
	}
	return nil
}

func (c *LogsCmd) Run(ctx context.Context, o *Output) error {
	w := bufio.NewWriter(o.Stdout)
	shown := 0
	show := func(l logs.Line) error {
		text := l.String()
		if o.JSON {
			text = l.JSON()
		}
		if text == "" {
			return nil
		}
		shown++
		_, err := fmt.Fprintln(w, text)
		return err
	}
	err := logs.Read(ctx, o.Flags, c.filter, c.Since.Time, c.Follow, show, w.Flush)
	if err == nil && shown == 0 && !c.Follow {
		o.Say("no line since %s", c.Since.UTC().Format(time.RFC3339))
	}
	return err
}
