package sample

import (
	"bytes"
	"io"
	"regexp"
	"unicode/utf8"
)

// Text is what is worth knowing about a prompt. Most have none of it.
type Text struct {
	Invalid bool `json:"invalid,omitempty"` // it is not UTF-8
	Blank   bool `json:"blank,omitempty"`   // it has a byte order mark and no character
	Answer  bool `json:"answer,omitempty"`  // it names a file with the answer
}

// maxPrompt is how much of a prompt is read for that, in bytes.
const maxPrompt = 1 << 20

// answerFile is what names a file with the answer begin with: people do not write so.
var answerFile = regexp.MustCompile(`(?i)ground_truth|final_frame`)

func describePrompt(f io.ReadSeeker) (Text, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return Text{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPrompt))
	if err != nil {
		return Text{}, err
	}
	characters := text
	for n := 1; n < utf8.UTFMax && len(text) == maxPrompt; n++ { // the last one may be cut
		if start := len(text) - n; utf8.RuneStart(text[start]) {
			if !utf8.FullRune(text[start:]) {
				characters = text[:start]
			}
			break
		}
	}
	without, marked := bytes.CutPrefix(text, []byte("\ufeff"))
	return Text{Invalid: !utf8.Valid(characters), Blank: marked && len(bytes.TrimSpace(without)) == 0,
		Answer: answerFile.Match(text)}, nil
}
