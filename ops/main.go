// Command ops submits runs, watches them, verifies and fetches their results, and runs the pipeline on one machine.
//
// A command is one struct in one file: its fields are its flags, Help is its manual, Validate checks its flags, Run
// does it. What it is for says the help of its field in CLI, or in the command above it. Run names what it needs as
// arguments; targets and clients are made only for a command that names them (see ops/target). To add a command, write
// its struct and give it a field.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// CLI is the command line.
type CLI struct {
	Globals
	Local      LocalCmd                  `cmd:"" help:"Run the pipeline on this machine."`
	Worker     WorkerCmd                 `cmd:"" help:"Take a stack's tasks on this machine."`
	Plan       PlanCmd                   `cmd:"" help:"Predict the tasks, time and cost of a run."`
	Submit     SubmitCmd                 `cmd:"" help:"Plan a run and send its tasks."`
	Monitor    MonitorCmd                `cmd:"" help:"Show the progress of a run."`
	Verify     VerifyCmd                 `cmd:"" help:"Check that a run is complete."`
	Repair     RepairCmd                 `cmd:"" help:"Make missing and damaged samples again, and replace duplicates."`
	Marks      FlagsCmd                  `cmd:"" name:"flags" help:"Flag samples to repair, or to leave out of exports."`
	Inspect    InspectCmd                `cmd:"" help:"Count and list hints: what is odd about samples that are complete."`
	Results    ResultsCmd                `cmd:"" help:"List and download samples."`
	Export     ExportCmd                 `cmd:"" help:"Export a dataset for trainers, hubs and evaluators."`
	UI         UICmd                     `cmd:"" name:"ui" help:"Show samples, the run and its failures in a browser."`
	Datasets   DatasetCmd                `cmd:"" name:"dataset" help:"Show, compare and delete datasets."`
	Reproduce  ReproduceCmd              `cmd:"" help:"Make a committed sample again and compare it."`
	Queue      QueueCmd                  `cmd:"" help:"Show the task queue."`
	DLQ        DLQCmd                    `cmd:"" name:"dlq" help:"Show tasks that failed for good, and replay them."`
	Gens       GeneratorsCmd             `cmd:"" name:"generators" help:"Show, fetch and check the generators."`
	Pause      PauseCmd                  `cmd:"" help:"Stop giving tasks to workers."`
	Resume     ResumeCmd                 `cmd:"" help:"Give tasks to workers again."`
	Rollback   RollbackCmd               `cmd:"" help:"Have an earlier version of the worker work on the queue."`
	Destroy    DestroyCmd                `cmd:"" help:"Delete a stack in AWS."`
	Logs       LogsCmd                   `cmd:"" help:"Show the logs of the workers."`
	Doctor     DoctorCmd                 `cmd:"" help:"Check a stack, and show how to fix what is wrong."`
	Info       InfoCmd                   `cmd:"" help:"Show the stack outputs."`
	Completion kongcompletion.Completion `cmd:"" help:"Print the code that makes your shell complete ops commands."`
}

func main() {
	local.Main() // does not return in the processes of the local stack
	os.Exit(run())
}

func variables() kong.Vars {
	return kong.Vars{"version": version(), "local_stack": "local", "default_dataset": task.DefaultDataset.String(),
		"large_run": strconv.Itoa(plan.LargeRun), "large_chunk": strconv.Itoa(plan.LargeChunk),
		"small_chunk":      strconv.Itoa(plan.SmallChunk),
		"local_visibility": local.DefaultVisibility.String(), "local_timeout": local.DefaultTimeout.String(),
		"local_memory": strconv.Itoa(local.DefaultMemory), "local_tmp": strconv.Itoa(local.DefaultTmp)}
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once

	var cli CLI
	out := &Output{ui.New(&cli.Style), &cli.Flags}
	parser, err := kong.New(&cli,
		kong.Name("ops"),
		kong.Description("Make, check and fetch datasets of video reasoning samples.\n\nStart with 'ops local run --all "+
			"--samples 20': it needs no cloud account."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		variables(),
		spans,
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(&cli.Flags, out, task.DefaultDataset),
		kong.BindSingletonProvider(target.Find),
		kong.BindSingletonProvider((*target.Target).Store),
		kong.BindSingletonProvider((*target.Target).Queue),
		kong.BindSingletonProvider((*target.Target).Lambda),
	)
	if err != nil {
		panic(err) // the command line itself is wrong
	}
	kongcompletion.Register(parser, kongcompletion.WithPredictor("generator", predictGenerators),
		kongcompletion.WithPredictor("entry", predictEntries))
	command, err := parser.Parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "ops: %v\n", err)
		fmt.Fprintf(os.Stderr, "try: %s --help\n", commandOf(err))
		return ui.ExitUsage
	}
	err = command.Run()
	out.Clear()
	return report(ctx, err)
}

func report(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	switch {
	case err.Error() == "":
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "ops: stopped")
	default:
		fmt.Fprintf(os.Stderr, "ops: %s\n", strings.ReplaceAll(ui.Plain(err), "\n", "; "))
	}
	if h, ok := errors.AsType[*ui.Hint](err); ok {
		fmt.Fprintf(os.Stderr, "try: %s\n", h.Way)
	} else if errors.Is(err, store.ErrDamaged) {
		fmt.Fprintln(os.Stderr, "try: ops verify --deep on the same stack: it shows what is damaged, and how to repair it")
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		fmt.Fprintln(os.Stderr, "try: the same command when the stack is up again; for the local one, ops local up")
	}
	var s interface{ ExitCode() int }
	if errors.As(err, &s) {
		return s.ExitCode()
	}
	return ui.ExitFailed
}

// commandOf returns the command that was being parsed, for a hint.
func commandOf(err error) string {
	if p, ok := errors.AsType[*kong.ParseError](err); ok && p.Context != nil && p.Context.Selected() != nil {
		return p.Context.Selected().FullPath()
	}
	return "ops"
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v += " " + ui.Short(s.Value)
		}
	}
	return strings.TrimSpace(v + " " + info.GoVersion)
}
