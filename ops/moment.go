package main

import (
	"reflect"
	"time"

	"github.com/alecthomas/kong"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// spans makes kong read durations with ui.ParseSpan.
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

// moment is a time on the command line.
type moment struct{ time.Time }

// UnmarshalText reads it with ui.ParseMoment.
func (m *moment) UnmarshalText(text []byte) error {
	t, err := ui.ParseMoment(string(text))
	m.Time = t
	return err
}
