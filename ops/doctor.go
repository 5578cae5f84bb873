package main

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/doctor"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

type DoctorCmd struct {
	Worker bool `help:"Also invoke the function once, for less than a cent, and show what only a worker can know."`
}

func (*DoctorCmd) Help() string {
	return `Prints one line for each check. For a stack on AWS: Pulumi knows the stack; the credentials belong to its account; queue and DLQ are reachable and connected; the bucket is writable; the function is active, runs the stack's image and fits the queue's times; Lambda accepts the image; the workers are not paused; the account allows as many workers as the stack may start; the log group exists; the image has the generators of the local folder. For the local stack: Python, generators and their environments, disk space, queue, bucket and workers. Each line that is not "ok" says what to do.

With --worker the function is invoked once, beside its tasks, and tells its kernel, how far its clock is off the bucket's, what a generator can reach from its sandbox (Landlock, /proc, the network), and which generators of the image cannot run and why: warnings that the build of the image does not show.

It writes one object to the bucket and deletes it again; it changes nothing else. Exit status 2 if there is a problem.

Examples:
  ops --stack dev doctor
  ops --stack dev doctor --worker
  ops --stack local doctor --json`
}

func (c *DoctorCmd) Run(ctx context.Context, o *Output) error {
	var findings []doctor.Finding
	var err error
	if o.Stack == stack.Local {
		if c.Worker {
			return ui.Usage("--worker invokes a function on AWS, and the local stack's workers run on this machine")
		}
		findings, err = doctor.Local(ctx, o.Flags)
	} else {
		findings, err = doctor.Cloud(ctx, o.Output, o.Flags, c.Worker)
	}
	if err != nil {
		return err
	}
	problems := 0
	for _, f := range findings {
		if f.State == "problem" {
			problems++
		}
	}
	err = o.Print(findings, func(w io.Writer) {
		for _, f := range findings {
			way := ""
			if f.Try != "" {
				way = " (try: " + f.Try + ")"
			}
			fmt.Fprintf(w, "%s\t%s\t%s%s\n", f.State, f.Check, f.Says, way)
		}
	})
	return cmp.Or(err, ui.ProblemIf(problems > 0, "doctor found %s", ui.Plural(problems, "problem")))
}
