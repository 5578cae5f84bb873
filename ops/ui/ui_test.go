package ui

import (
	"io"
	"testing"
)

func TestProgressBeyondTotal(t *testing.T) {
	o := &Output{Stderr: io.Discard, Terminal: true}
	for _, c := range [][2]int{{0, 0}, {1, 0}, {7, 5}, {5, 5}} {
		o.Progress("counting", c[0], c[1]) // an estimate is too low: no panic
	}
}

func TestSome(t *testing.T) {
	if got := Some([]string{"a", "b", "c", "d", "e"}, 3); got != "a, b, c and 2 more" {
		t.Error(got)
	}
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{"a-b/c.py": "a-b/c.py", "": "''", "a b": "'a b'", "it's": `'it'\''s'`,
		"$HOME": "'$HOME'", "*": "'*'"} {
		if got := Quote(word); got != want {
			t.Errorf("%q is quoted as %s, want %s", word, got, want)
		}
	}
}
