package sample

import (
	"bytes"
	"strings"
	"testing"
)

// What is odd about a prompt is found, wherever it is cut.
func TestPrompt(t *testing.T) {
	for text, want := range map[string]Text{
		"Find the way to the goal.\n":                      {},
		"\ufeffFind the way.":                              {},
		"Der Weg f\xc3\xbchrt zum Ziel.":                   {},
		"Der Weg f\xfchrt zum Ziel.":                       {Invalid: true},
		"\ufeff":                                           {Blank: true},
		"\ufeff \r\n":                                      {Blank: true},
		"Match final_frame.png.":                           {Answer: true},
		"As in Ground_Truth.mp4 \xff":                      {Answer: true, Invalid: true},
		"The final frame shows the truth.":                 {},
		strings.Repeat("a", maxPrompt-1) + "é":             {},
		strings.Repeat("a", maxPrompt-1) + "\xff and more": {Invalid: true},
		"a" + strings.Repeat("\u20ac", maxPrompt):          {},
		"aa" + strings.Repeat("\u20ac", maxPrompt):         {},
		strings.Repeat("\u20ac", maxPrompt):                {},
		strings.Repeat("\U0001f600", maxPrompt):            {},
		strings.Repeat("x", maxPrompt) + "\xff":            {},
	} {
		f := bytes.NewReader([]byte(text))
		_, _ = f.Seek(2, 0)
		if got, err := describePrompt(f); err != nil || got != want {
			t.Errorf("%.40q… of %d bytes is %+v, %v; want %+v", text, len(text), got, err, want)
		}
	}
}
