package ui

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ParseSpan reads a span of time, wherever people give one: Go's units, and d for days of 24 hours.
func ParseSpan(s string) (time.Duration, error) {
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

// ParseMoment reads a time, in the local zone unless it names one, or a span back from now.
func ParseMoment(s string) (time.Time, error) {
	if d, err := ParseSpan(s); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf(
		"%q is neither a span such as 90m, 12h or 3d nor a time such as 2026-08-01T10:00:00Z", s)
}
