package ui

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Count writes a number with separators: 12,345.
func Count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Size writes a number of bytes: 1.5 MB.
func Size(n int64) string {
	f, unit := float64(n), "B"
	for _, next := range []string{"kB", "MB", "GB", "TB"} {
		if f < 1000 {
			break
		}
		f, unit = f/1000, next
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// Plural writes a number and what it counts: 1 sample, 2 samples.
func Plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return Count(n) + " " + what + "s"
}

// Short is the beginning of a commit or another hash; that a commit is "-dirty" stays.
func Short(hash string) string {
	if commit, dirty := strings.CutSuffix(hash, "-dirty"); dirty {
		return Short(commit) + "-dirty"
	}
	return hash[:min(len(hash), 12)]
}

// FromHere returns a path below the working folder relative to it.
func FromHere(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if name, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(name) {
		return name
	}
	return path
}

// Cut shortens a text to one line of at most n characters.
func Cut(s string, n int) string {
	s = Printable(strings.Join(strings.Fields(s), " "))
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// Printable is a line of another program without control characters and tabs.
func Printable(line string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, line)
}

// Seconds is a number of seconds as a duration.
func Seconds(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// Dollars writes an amount of money.
func Dollars(d float64) string {
	switch {
	case d > 0 && d < 0.001:
		return "<0.001"
	case d < 0.1:
		return fmt.Sprintf("%.3f", d)
	}
	return fmt.Sprintf("%.2f", d)
}

// Some lists at most a few names and counts the others.
func Some(names []string, few int) string {
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}

// More counts what a list leaves out, behind it: " and 1,234 more", or nothing.
func More(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %s more", Count(n))
}

// Span writes a duration: 7.1 days, 1h02m, 3m05s, 12.4 s.
func Span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%.1f days", d.Hours()/24)
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./=:,+@%-]+$`)

// Quote quotes a word for a shell, if it needs that.
func Quote(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

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
