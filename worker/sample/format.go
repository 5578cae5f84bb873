package sample

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"image/gif"
	"image/jpeg"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"unicode/utf16"
	"unicode/utf8"
)

type formatError struct{ reason string }

func (e *formatError) Error() string { return e.reason }

func broken(format string, args ...any) error { return &formatError{fmt.Sprintf(format, args...)} }

// stopped is what ends the reading of a file, as a panic up to the function that has deferred caught.
type stopped struct{ error }

func must(err error) {
	if err != nil {
		panic(stopped{err})
	}
}

// need ends the reading of a file that is not as it has to be.
func need(ok bool, format string, args ...any) {
	if !ok {
		must(broken(format, args...))
	}
}

// fill fills p, or ends the reading with what a file without so many bytes is.
func fill(f io.Reader, p []byte, without string) {
	_, err := io.ReadFull(f, p)
	need(err == nil, "%s", without)
}

// caught makes what ended the reading the error of the function that defers it.
func caught(err *error) {
	switch p := recover().(type) {
	case nil:
	case stopped:
		*err = p.error
	default:
		panic(p)
	}
}

// Check checks a file of the sample id as Collect does, and returns what is wrong with it, or "".
func Check(id, name string, f io.ReadSeeker, size int64) (wrong string, err error) {
	if _, err = checkFile(name, f, size, nil); err == nil && name == "metadata.json" {
		s := &Source{Reader: f}
		var found metadata
		if found, err = readMetadata(s, io.Discard, id); err == nil && found.others > 0 {
			err = broken("has a task_id that is not %s", id)
		}
		if s.Failed != nil {
			err = s.Failed
		}
	}
	return reason(err)
}

// reason is what is wrong with a file, or "", and the error if it is another one.
func reason(err error) (wrong string, other error) {
	if bad, ok := errors.AsType[*formatError](err); ok {
		return bad.reason, nil
	}
	return "", err
}

// Describe checks the structure of a file, as Collect does, and returns its media facts. The error is what is wrong.
func Describe(name string, file []byte) (Media, error) {
	return checkFile(name, bytes.NewReader(file), int64(len(file)), nil)
}

// checkFile checks that a file is complete, by its extension, and returns the media facts of a video or a picture. The
// checks read the structure and the checksums of a file and decode no pixel: decoding would cost more CPU than the
// worker is allowed beside the generator. The buffer may be nil.
func checkFile(name string, f io.ReadSeeker, size int64, buffer []byte) (m Media, err error) {
	s := &seekable{Source{Reader: f}, f}
	defer func() {
		if s.Failed != nil { // it was not the file that ended
			err = s.Failed
		}
	}()
	defer caught(&err)
	need(size > 0, "is empty")
	_, err = f.Seek(0, io.SeekStart)
	must(err)
	return checkFormat(name, s, size, buffer), nil
}

func checkFormat(name string, f io.ReadSeeker, size int64, buffer []byte) (m Media) {
	switch path.Ext(name) {
	case ".png":
		m = checkPNG(f, size, buffer)
		_, err := f.Seek(0, io.SeekStart)
		must(err)
		m.Colour = oneColour(f)
	case ".mp4", ".mov":
		m = checkMP4(f, size)
	case ".avi":
		m = checkAVI(f, size)
	case ".webm", ".mkv":
		m = checkMatroska(f, size)
	case ".txt":
		checkText(f)
	case ".jpg", ".jpeg":
		config, _ := jpeg.DecodeConfig(f) // of its header alone: JPEG has no checksums
		m = Media{Width: config.Width, Height: config.Height}
	case ".gif":
		config, _ := gif.DecodeConfig(f)
		m = Media{Width: config.Width, Height: config.Height}
	}
	return m
}

func checkText(f io.Reader) {
	head := make([]byte, 4096)
	n, err := io.ReadFull(f, head)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		must(err)
	}
	need(len(bytes.TrimSpace(head[:n])) > 0 || n == len(head), "holds nothing but blanks")
}

// checkPNG walks the chunks and their CRCs up to IEND, which must end the file.
func checkPNG(f io.Reader, size int64, buffer []byte) (m Media) {
	const truncated = "is a truncated PNG"
	var head [8]byte
	fill(f, head[:], "is no PNG")
	need(string(head[:]) == "\x89PNG\r\n\x1a\n", "is no PNG")
	left := size - 8
	seenData := false
	for first := true; ; first = false {
		fill(f, head[:], truncated)
		length, kind := int64(binary.BigEndian.Uint32(head[:4])), string(head[4:])
		left -= 12 + length
		need(left >= 0, truncated)
		crc := crc32.NewIEEE()
		_, _ = crc.Write(head[4:])
		if first && length >= 8 {
			fill(f, head[:], truncated)
			_, _ = crc.Write(head[:])
			m.Width, m.Height = int(binary.BigEndian.Uint32(head[:4])), int(binary.BigEndian.Uint32(head[4:]))
			length -= 8
		}
		n, err := io.CopyBuffer(crc, io.LimitReader(f, length), buffer)
		need(err == nil && n == length, truncated)
		_, err = io.ReadFull(f, head[:4])
		need(err == nil && binary.BigEndian.Uint32(head[:4]) == crc.Sum32(),
			"is a damaged PNG: the checksum of its %q chunk is wrong", kind)
		need(first == (kind == "IHDR"), "is no PNG: IHDR is not its first chunk")
		seenData = seenData || kind == "IDAT"
		if kind == "IEND" {
			need(seenData, "is a PNG without a picture")
			need(left == 0, "is a PNG followed by %d other bytes", left)
			return m
		}
	}
}

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

// Source reads from another reader and keeps the error that ended it, io.EOF apart. A caller can so tell wrong bytes
// from a disk or a connection that failed: an archive or a picture that ends too early may be either.
type Source struct {
	io.Reader
	N      int64 // bytes that were read
	Failed error
}

func (s *Source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.N += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		s.Failed = err
	}
	return n, err
}

type seekable struct {
	Source
	io.Seeker
}

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
