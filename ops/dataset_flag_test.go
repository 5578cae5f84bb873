package main

import (
	"slices"
	"testing"

	"github.com/alecthomas/kong"
)

// withoutDataset are the commands that do not work on samples of one dataset, with the reason.
var withoutDataset = map[string]string{
	"local up": "the stack", "local down": "the stack", "local status": "the stack", "pause": "the stack",
	"resume": "the stack", "rollback": "the stack", "destroy": "the stack", "doctor": "the stack",
	"info": "the stack", "worker": "takes the tasks of all datasets",
	"export verify": "a finished export", "export push": "a finished export",
	"dataset list": "all datasets", "dataset show": "an argument", "dataset diff": "arguments",
	"dataset delete": "an argument", "queue count": "the queue", "queue peek": "the queue", "queue purge": "the queue",
	"dlq count": "the queue", "dlq show": "a message by its id",
	"generators list": "generators", "generators sync": "generators", "generators lock": "generators",
	"generators check": "generators", "generators run": "generators", "completion": "the command line",
}

// Every command takes --dataset, or OPS_DATASET, unless there is a reason.
func TestCommandsHaveADataset(t *testing.T) {
	parser, err := kong.New(&CLI{}, variables())
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, node := range parser.Model.Leaves(false) {
		at := slices.IndexFunc(node.Flags, func(f *kong.Flag) bool { return f.Name == "dataset" })
		reason, without := withoutDataset[node.Path()]
		switch {
		case without:
			if seen++; at >= 0 {
				t.Errorf("%s takes --dataset, and is said not to: %s", node.Path(), reason)
			}
		case at < 0 || !slices.Contains(node.Flags[at].Envs, "OPS_DATASET"):
			t.Errorf("%s takes no --dataset with OPS_DATASET: let it, or say why not", node.Path())
		}
	}
	if seen != len(withoutDataset) {
		t.Errorf("%d of %d commands without --dataset are there", seen, len(withoutDataset))
	}
}
