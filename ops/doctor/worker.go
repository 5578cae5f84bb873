package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
)

// worstClock is how far a machine's clock may be off: AWS refuses requests that are five minutes off.
const worstClock = time.Minute

// worker invokes the function once and returns what it answers about its machine. The first finding
// is a problem, and the only one, if it does not answer.
func (d *doctor) worker(ctx context.Context) []Finding {
	x, err := d.t.Examine(ctx, d.lambda)
	if err != nil {
		return []Finding{finding("worker", "", err)}
	}
	found := []Finding{{Check: "worker", State: "ok", Says: fmt.Sprintf("Linux %s, %s, %s, %s MB, as user %d", x.Kernel,
		x.Machine, ui.Plural(x.CPUs, "CPU"), ui.Count(int(x.MemoryMB)), x.User)}}
	if x.Problem != "" {
		found = append(found, finding("sandbox", "", errors.New(x.Problem)))
	} else if x.Sees != nil {
		says, err := sandbox(x)
		found = append(found, finding("sandbox", says, err))
	}
	says, err := clock(x)
	found = append(found, finding("clock", says, err))
	ready := 0
	for _, g := range x.Generators {
		if g.Problem == "" {
			ready++
			continue
		}
		found = append(found, finding("generator", "", ui.WithHint(
			fmt.Errorf("%s is in the image and cannot run: %s", g.Name, g.Problem), "ops generators check %s, then pulumi up",
			g.Name)))
	}
	if ready > 0 && ready == len(x.Generators) {
		found = append(found, Finding{Check: "generator", State: "ok", Says: fmt.Sprintf("all %d can run", ready)})
	}
	return found
}

// sandbox judges what generators reach. Command lines are everybody's.
func sandbox(x *worker.Examination) (string, error) {
	landlock := "no Landlock, which Linux has since 5.13"
	if x.Landlock > 0 {
		landlock = fmt.Sprintf("Landlock %d", x.Landlock)
	}
	var open []string
	for _, kind := range []string{"environ", "mem", "maps", "fd"} {
		ids := x.Sees.Proc[kind]
		switch {
		case slices.Contains(ids, x.Worker):
			open = append(open, kind+" of the worker")
		case len(ids) > 0:
			open = append(open, fmt.Sprintf("%s of %s", kind, process(ids)))
		}
	}
	network := "with the network"
	if !x.Sees.Network {
		network = "without a network"
	}
	if len(open) > 0 {
		return wrong("run only generators that may have the rights of the function's role",
			"%s; a generator can read %s in /proc, which may hold credentials", landlock, strings.Join(open, ", "))
	}
	writable := "nothing outside its own folders"
	if len(x.Sees.Writable) > 0 {
		writable = strings.Join(x.Sees.Writable, ", ")
	}
	return fmt.Sprintf("%s; a generator runs %s, reads %d command lines of others in /proc and no environment or memory, "+
		"and can write to %s", landlock, network, len(x.Sees.Proc["cmdline"]), writable), nil
}

// process names processes by their ids, the first few.
func process(ids []int) string {
	var names []string
	for _, id := range ids {
		names = append(names, strconv.Itoa(id))
	}
	return "process " + ui.Some(names, 3)
}

func clock(x *worker.Examination) (string, error) {
	if x.ClockAhead == nil {
		return wrong("check the function's network", "the bucket did not tell the worker its time: it does not answer there")
	}
	off := time.Duration(*x.ClockAhead * float64(time.Second)).Round(time.Second)
	if off.Abs() > worstClock {
		return wrong("set the clock of the machine: AWS refuses requests that are 5 minutes off",
			"the bucket's clock and the worker's differ by %s", ui.Span(off.Abs()))
	}
	return fmt.Sprintf("%s off the bucket's, to a second", ui.Span(off.Abs())), nil
}
