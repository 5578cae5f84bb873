package sample

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"os"
	"path/filepath"
	"unicode/utf16"
	"unicode/utf8"
)

// metadata is what is known of a metadata.json, which may be anything that Python's
// json.load takes: with NaN and Infinity, in UTF-8, 16 or 32, of any size.
//
// Only the names of objects at the top, or in a list at the top, count. What lies deeper is the generator's own.
type metadata struct {
	others int    // values of task_id that are not the sample's id
	hash   string // the param_hash: a string, or a number as it is written; "" if there is none
}

const (
	maxDepth = 10_000  // of nested lists and objects; Python's reader gives up earlier
	maxText  = 256     // bytes of a string that are kept
	bufSize  = 4 << 10 // most files are shorter
)

// readMetadata reads a JSON text and writes it to to with id in the place of every task_id, each other byte as it was.
// It takes the same memory for texts of any size. The error is a formatError if it is no JSON.
func readMetadata(from io.Reader, to io.Writer, id string) (metadata, error) {
	value, err := json.Marshal(id)
	if err != nil {
		return metadata{}, err
	}
	s := &scanner{from: bufio.NewReaderSize(from, bufSize), to: bufio.NewWriterSize(to, bufSize), id: id, value: value}
	err = s.scan()
	s.found.hash = s.hashes.text()
	return s.found, err
}

// setTaskID gives a metadata.json the id of its sample, if it has a task_id, and returns its param_hash.
func setTaskID(file, id string) (hash string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	found, err := readMetadata(f, io.Discard, id)
	if err != nil || found.others == 0 || id == "" {
		return found.hash, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	changed, err := os.CreateTemp(filepath.Dir(file), "metadata-")
	if err != nil {
		return "", err
	}
	_, err = readMetadata(f, changed, id)
	if err = errors.Join(err, changed.Close()); err != nil {
		return "", errors.Join(err, os.Remove(changed.Name()))
	}
	return found.hash, os.Rename(changed.Name(), file)
}

// hashes is what the param_hash of each item came to.
type hashes struct {
	n     int
	first string
	all   []byte // SHA-256 of the one before and the next
}

func (h *hashes) add(text string) {
	if text == "" {
		return
	}
	if h.n++; h.n == 1 {
		h.first = text
	}
	sum := sha256.Sum256(append(h.all, text...))
	h.all = sum[:]
}

func (h *hashes) text() string {
	if h.n > 1 {
		return hex.EncodeToString(h.all)
	}
	return h.first
}

// excerpt keeps a text, or the SHA-256 of one that is long. A nil one keeps nothing.
type excerpt struct {
	kept []byte
	half rune // the first half of a character
	long hash.Hash
}

func newExcerpt(wanted bool) *excerpt {
	if wanted {
		return &excerpt{}
	}
	return nil
}

func (e *excerpt) add(c rune) {
	if e == nil {
		return
	}
	before := e.half
	e.half = 0
	if before != 0 {
		if both := utf16.DecodeRune(before, c); both != utf8.RuneError {
			c = both
		} else {
			e.putHalf(before)
		}
	}
	switch {
	case 0xd800 <= c && c < 0xdc00:
		e.half = c
	case utf16.IsSurrogate(c):
		e.putHalf(c)
	default:
		e.put(utf8.AppendRune(nil, c)...)
	}
}

// putHalf writes half of a character as Python's surrogatepass does: no valid UTF-8.
func (e *excerpt) putHalf(c rune) { e.put(0xed, 0x80|byte(c>>6)&0x3f, 0x80|byte(c)&0x3f) }

func (e *excerpt) put(text ...byte) {
	if e == nil {
		return
	}
	if e.kept = append(e.kept, text...); len(e.kept) > maxText {
		e.spill()
	}
}

func (e *excerpt) spill() {
	if e.long == nil {
		e.long = sha256.New()
	}
	_, _ = e.long.Write(e.kept)
	e.kept = e.kept[:0]
}

// text returns the text if it is short and can be written as UTF-8, else its SHA-256.
func (e *excerpt) text() string {
	if e == nil {
		return ""
	}
	if e.half != 0 {
		e.putHalf(e.half)
		e.half = 0
	}
	if e.long == nil && utf8.Valid(e.kept) {
		return string(e.kept)
	}
	e.spill()
	return hex.EncodeToString(e.long.Sum(nil))
}
