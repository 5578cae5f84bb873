package main

import (
	"github.com/alecthomas/kong"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inventory"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Globals are the flags of every command.
type Globals struct {
	target.Flags
	ui.Style
	Version kong.VersionFlag `help:"Print the version."`
}

// Output is what commands write with, and the flags of every command.
type Output struct {
	*ui.Output
	*target.Flags
}

func (o *Output) inventory() inventory.Inventory {
	return inventory.Inventory{Flags: o.Flags, Say: o.Say}
}

// inDataset is the flag of every command that works on samples.
type inDataset struct {
	Dataset string `help:"Dataset to work on." env:"OPS_DATASET" default:"${default_dataset}" placeholder:"NAME"`
}

// AfterApply makes it the dataset of the target and of the store.
func (d *inDataset) AfterApply(k *kong.Context) error {
	if d.Dataset == "" { // an empty variable means the default
		d.Dataset = task.DefaultDataset.String()
	}
	if err := task.CheckName(d.Dataset); err != nil {
		return ui.Usage("--dataset %v", err)
	}
	k.Bind(task.Dataset(d.Dataset))
	return nil
}
