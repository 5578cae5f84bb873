package main

import (
	"testing"
	"time"
)

func TestMoment(t *testing.T) {
	now := time.Now()
	for text, want := range map[string]time.Time{
		"90m": now.Add(-90 * time.Minute), "12h": now.Add(-12 * time.Hour), "3d": now.Add(-72 * time.Hour),
		"0.5d":                 now.Add(-12 * time.Hour),
		"2026-08-01T10:00:00Z": time.Date(2026, 8, 1, 10, 0, 0, 0, time.UTC), "2026-08-01T10:00": time.Date(2026, 8, 1, 10, 0,
			0, 0, time.Local), "2026-08-01": time.Date(2026, 8, 1, 0, 0, 0, 0, time.Local),
	} {
		var m moment
		if err := m.UnmarshalText([]byte(text)); err != nil || m.Sub(want).Abs() > time.Minute {
			t.Errorf("%s is %s, %v; want %s", text, m, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "-3h", "-1d", "xd", "2026-13-01"} {
		if err := new(moment).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is a time", text)
		}
	}
}
