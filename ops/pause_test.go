package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// Lambda takes its time: pause says which states it goes through, and waits.
func TestPauseWaits(t *testing.T) {
	c := newMotoCloud(t)
	c.setEnvironment(t)
	deployed := &target.Target{Outputs: c.Outputs, Name: "dev"}
	q, err := deployed.Queue(t.Context())
	c.ok(q, err)
	pause := func(ctx context.Context) (said string, err error) {
		var data, talk bytes.Buffer
		err = (&PauseCmd{}).Run(ctx, &Output{&ui.Output{Style: &ui.Style{}, Stdout: &data, Stderr: &talk}, &target.Flags{}},
			deployed, q, c.lambda)
		return talk.String() + data.String(), err
	}
	state := func(name string, once bool) answer {
		return answer{method: "GET", path: "/2015-03-31/event-source-mappings/", once: once,
			change: func(a map[string]any) { a["State"] = name }}
	}
	for _, s := range []string{"Disabling", "Updating", "Updating", "Enabled"} { // the last is asked first
		c.answer(state(s, true))
	}
	said, err := pause(t.Context())
	if err != nil || !strings.Contains(said, "stack dev · account 123456789012 · us-east-2") ||
		!strings.Contains(said, "is Updating\nthe event source mapping is Disabling\npaused: ") {
		t.Errorf("%v, %s", err, said)
	}

	// Interrupted, it says how things are.
	c.answer(state("Disabling", false))
	ctx, stop := context.WithCancel(t.Context())
	c.answer(answer{method: "PUT", path: "/2015-03-31/event-source-mappings/", change: func(map[string]any) { stop() }})
	if _, err = pause(ctx); err == nil {
		t.Error("no error")
	}

	for _, test := range []struct {
		harm      func()
		says, try string
	}{
		{func() {
			c.answer(answer{method: "PUT", path: "/2015-03-31/event-source-mappings/", status: 400,
				code: "ResourceInUseException"})
		}, "is being changed", "in a minute"},
		{func() { deployed.EventSourceMappingID = "00000000-0000-4000-8000-000000000000" }, "is gone", "pulumi up --refresh"},
		{func() { deployed.EventSourceMappingID = "" }, "neither its function nor a fleet takes tasks", "where they run"},
	} {
		test.harm()
		_, err := pause(t.Context())
		h, ok := errors.AsType[*ui.Hint](err)
		if !ok || !strings.Contains(err.Error(), test.says) || !strings.Contains(h.Way, test.try) {
			t.Errorf("%v, want %q and %q", err, test.says, test.try)
		}
	}
}
