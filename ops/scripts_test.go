package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// exits runs a program and compares its exit status: exits 80 ops submit --all
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// sendTo puts a message into a queue: send dead BODY [attribute=value ...]
func sendTo(ts *testscript.TestScript, neg bool, args []string) {
	c := ts.Value("cloud").(*cloud)
	attributes := map[string]queue.Attribute{}
	for _, pair := range args[2:] {
		name, value, _ := strings.Cut(pair, "=")
		attributes[name] = queue.Attribute{Type: "String", Text: value}
		if binary, ok := strings.CutPrefix(value, "hex:"); ok {
			data, err := hex.DecodeString(binary)
			ts.Check(err)
			attributes[name] = queue.Attribute{Type: "Binary.mine", Binary: data}
		}
	}
	to := map[string]*queue.Client{testTasks: c.queue, testDead: c.dead}[args[0]]
	ts.Check(to.SendMessage(context.Background(), args[1], attributes))
}

// commitRange commits samples, of another run unless one is named: commit GENERATOR FIRST LAST SEED CHUNKSIZE [RUN
// [COMMIT [LOCK]]]
func commitRange(ts *testscript.TestScript, neg bool, args []string) {
	var n [4]int
	for i := range n {
		var err error
		n[i], err = strconv.Atoi(args[i+1])
		ts.Check(err)
	}
	run, commit, lock := "earlier", "", ""
	for i, to := range []*string{&run, &commit, &lock} {
		if len(args) > 5+i {
			*to = args[5+i]
		}
	}
	for start := n[0]; start <= n[1]; start += n[3] { // as workers do
		chunk := task.Range{Start: start, End: min(start+n[3], n[1]+1)}
		ts.Check(ts.Value("cloud").(*cloud).commit(context.Background(), args[0], run, commit, lock, chunk, n[2], n[3]))
	}
}

// takeFrom prints what can be received from a queue, sorted, and removes it.
func takeFrom(ts *testscript.TestScript, neg bool, args []string) {
	list, err := ts.Value("cloud").(*cloud).take(context.Background(), args[0])
	ts.Check(err)
	slices.Sort(list)
	out := ts.Stdout()
	for _, line := range list {
		fmt.Fprintln(out, line)
	}
}

// countRuns compares the number of runs that are written down, and sets RUN to
// the newest: runs 1
func countRuns(ts *testscript.TestScript, neg bool, args []string) {
	ids, err := ts.Value("cloud").(*cloud).store.Runs(context.Background())
	ts.Check(err)
	if strconv.Itoa(len(ids)) != args[0] {
		ts.Fatalf("%d runs are written down, want %s", len(ids), args[0])
	}
	if len(ids) > 0 {
		ts.Setenv("RUN", ids[0])
	}
}

// waitUp waits until the local stack of the script's folder is up.
func waitUp(ts *testscript.TestScript, neg bool, args []string) {
	for limit := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		_, err := local.Outputs(ts.MkAbs(".local"))
		if err == nil {
			return
		}
		if time.Now().After(limit) {
			ts.Fatalf("the local stack is not up: %v", err)
		}
	}
}

// flip changes one bit in the middle of a file.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	data := []byte(ts.ReadFile(args[0]))
	data[len(data)/2] ^= 4
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o644))
}

// editFile replaces a text in a file by another: edit FILE OLD NEW
func editFile(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%q is not in %s", args[1], args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), 0o644))
}

// capture sets a variable to what a group of a regular expression matches in the
// last output: capture stdout NAME REGEXP
func capture(ts *testscript.TestScript, neg bool, args []string) {
	found := regexp.MustCompile("(?m)" + args[2]).FindStringSubmatch(ts.ReadFile(args[0]))
	if len(found) != 2 {
		ts.Fatalf("%s matches nothing", args[2])
	}
	ts.Setenv(args[1], found[1])
}

// until waits until a queue holds so many messages: until tasks 3
func until(ts *testscript.TestScript, neg bool, args []string) {
	c := ts.Value("cloud").(*cloud)
	for limit := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		visible, _, _ := c.sqs.Counts(args[0])
		if strconv.Itoa(visible) == args[1] {
			return
		}
		if time.Now().After(limit) {
			ts.Fatalf("%s holds %d messages", args[0], visible)
		}
	}
}

// comeBack makes visible what is in flight, as time does: comeback dead
func comeBack(ts *testscript.TestScript, neg bool, args []string) {
	c := ts.Value("cloud").(*cloud)
	for _, d := range c.sqs.InFlight(args[0]) {
		ts.Check(c.sqs.Return(args[0], d.ReceiptHandle, true))
	}
}

// printRun prints a run as it is written down: run ID
func printRun(ts *testscript.TestScript, neg bool, args []string) {
	run, err := ts.Value("cloud").(*cloud).store.Run(context.Background(), args[0])
	ts.Check(err)
	ts.Check(json.NewEncoder(ts.Stdout()).Encode(run))
}

// setOutput changes an output of the stack: output generators '{"maze-task":"c1"}'
func setOutput(ts *testscript.TestScript, neg bool, args []string) {
	file := ts.Getenv("OUT")
	var all map[string]json.RawMessage
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(file)), &all))
	all[args[0]] = json.RawMessage(args[1])
	text, err := json.Marshal(all)
	ts.Check(err)
	ts.Check(os.WriteFile(file, text, 0o644))
}
