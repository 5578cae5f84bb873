package main

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// parseSpan reads a span of time for every flag that takes one: Go's units, and d
// for days of 24 hours.
func parseSpan(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil && n >= 0 && n < 10_000 {
			return time.Duration(n * 24 * float64(time.Hour)), nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no span of time such as 90s, 15m, 12h or 3d", s)
	}
	return d, nil
}

// spans makes kong read durations with parseSpan.
var spans = kong.TypeMapper(reflect.TypeFor[time.Duration](),
	kong.MapperFunc(func(c *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := c.Scan.PopValueInto("duration", &text); err != nil {
			return err
		}
		d, err := parseSpan(text)
		target.SetInt(int64(d))
		return err
	}))

// moment is a time on the command line.
type moment struct{ time.Time }

// UnmarshalText reads a time, or a span back from now.
func (m *moment) UnmarshalText(text []byte) error {
	s := string(text)
	if d, err := parseSpan(s); err == nil && d >= 0 {
		m.Time = time.Now().Add(-d)
		return nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			m.Time = t
			return nil
		}
	}
	return fmt.Errorf("%q is neither a span such as 90m, 12h or 3d nor a time such as 2026-08-01T10:00:00Z", s)
}
