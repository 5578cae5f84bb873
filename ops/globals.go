package main

import (
	"reflect"
	"time"

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

// between refuses the number of a flag, if it was given, unless it lies in a range.
func between(flag string, number *int, least, most int) error {
	if number == nil || *number >= least && *number <= most {
		return nil
	}
	return ui.Usage("%s is %d, it must be from %d to %d", flag, *number, least, most)
}

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

var spans = kong.TypeMapper(reflect.TypeFor[time.Duration](),
	kong.MapperFunc(func(c *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := c.Scan.PopValueInto("duration", &text); err != nil {
			return err
		}
		d, err := ui.ParseSpan(text)
		target.SetInt(int64(d))
		return err
	}))

type moment struct{ time.Time }

// UnmarshalText reads it with ui.ParseMoment.
func (m *moment) UnmarshalText(text []byte) error {
	t, err := ui.ParseMoment(string(text))
	m.Time = t
	return err
}
