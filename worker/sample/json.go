package sample

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// scanner reads JSON by characters. Python's json is the measure of what is one.
type scanner struct {
	from     *bufio.Reader
	to       *bufio.Writer
	width    int // bytes of a unit: 1, 2 or 4
	little   bool
	at       int64 // bytes read
	next     rune  // the current character; end at the end
	unit     []byte
	backing  [8]byte
	hold     bool   // nothing is written: a task_id is replaced,
	replaced int    // that stands in the innermost of so many lists and objects
	open     []rune // brackets
	began    bool   // the last of them has just been opened
	id       string
	value    []byte // the id as JSON

	found  metadata
	hashes hashes
	item   string // param_hash of the object being read, the last one
}

const end = rune(-1)

func (s *scanner) wrong(format string, args ...any) {
	must(broken("is no JSON: %s, at byte %d", fmt.Sprintf(format, args...), s.at))
}

func (s *scanner) unexpected() {
	if s.next == end {
		s.wrong("it is cut off")
	}
	s.wrong("%q stands where it cannot", s.next)
}

func (s *scanner) blanks() {
	for s.next == ' ' || s.next == '\t' || s.next == '\n' || s.next == '\r' {
		s.step()
	}
}

// take takes the character c and the blanks behind it.
func (s *scanner) take(c rune) {
	if s.next != c {
		s.unexpected()
	}
	s.step()
	s.blanks()
}

// scan reads all of the text. The error is of the text, or of reading and writing it.
func (s *scanner) scan() (err error) {
	defer caught(&err)
	s.encoding()
	s.blanks()
	for {
		s.valueOrName()
		for more := !s.began; more; { // else the first item of what was opened is next
			s.hold = s.hold && s.replaced != len(s.open)
			s.blanks()
			switch {
			case len(s.open) == 0 && s.next == end:
				return s.to.Flush()
			case len(s.open) == 0:
				s.unexpected()
			case s.next == ',':
				s.take(',')
				more = false
			default:
				s.closeBracket()
			}
		}
	}
}

// closeBracket takes the end of the list or object that was opened last.
func (s *scanner) closeBracket() {
	last := len(s.open) - 1
	if s.next != s.open[last]+2 { // ']' and '}' in ASCII
		s.unexpected()
	}
	if s.isTop() {
		s.hashes.add(s.item)
		s.item = ""
	}
	s.open = s.open[:last]
	s.step()
}

// isTop reports whether the object that is open is at the top, or in a list at the top.
func (s *scanner) isTop() bool {
	n := len(s.open)
	return n == 1 && s.open[0] == '{' || n == 2 && s.open[0] == '[' && s.open[1] == '{'
}

// words are the values without digits and quotes, by their first letters.
var words = map[rune]string{'n': "null", 't': "true", 'f': "false", 'N': "NaN", 'I': "Infinity"}

// valueOrName reads an item: a value, in an object after its name. Of a list or an object that holds something it reads
// the beginning, and sets began.
func (s *scanner) valueOrName() {
	s.began = false
	name := ""
	if n := len(s.open); n > 0 && s.open[n-1] == '{' {
		name = s.readString(s.isTop())
		s.blanks()
		s.take(':')
	}
	if name == "task_id" {
		at := s.width - 1
		if s.little {
			at = 0
		}
		for _, b := range s.value {
			unit := [4]byte{}
			unit[at] = b
			s.write(unit[:s.width])
		}
		s.hold, s.replaced = true, len(s.open)
	}
	text := ""
	c := s.next
	switch {
	case c == '{' || c == '[':
		if s.open = append(s.open, c); len(s.open) > maxDepth {
			s.wrong("more than %d lists and objects lie in each other", maxDepth)
		}
		s.take(c)
		if s.began = s.next != c+2; !s.began {
			s.closeBracket()
		}
	case c == '"':
		text = s.readString(name == "task_id" || name == "param_hash")
	case c == '-' || '0' <= c && c <= '9':
		text = s.readNumber(name == "param_hash")
	case words[c] == "":
		s.unexpected()
	default:
		s.word(words[c])
	}
	switch {
	case name == "task_id" && (c != '"' || text != s.id):
		s.found.others++
	case name == "param_hash":
		s.item = text
	}
}

func (s *scanner) word(word string) {
	for _, c := range word {
		if s.next != c {
			s.unexpected()
		}
		s.step()
	}
}

// readNumber returns a number as it is written, if that is wanted; "" for -Infinity.
func (s *scanner) readNumber(wanted bool) string {
	text := newExcerpt(wanted)
	one := func(of ...rune) bool {
		is := slices.Contains(of, s.next)
		if is {
			text.add(s.next)
			s.step()
		}
		return is
	}
	digits := func() (n int) {
		for ; '0' <= s.next && s.next <= '9'; n++ {
			text.add(s.next)
			s.step()
		}
		if n == 0 {
			s.unexpected()
		}
		return n
	}
	one('-')
	if s.next == 'I' {
		s.word("Infinity")
		return ""
	}
	if zero := s.next == '0'; digits() > 1 && zero {
		s.wrong("a number begins with 0")
	}
	if one('.') {
		digits()
	}
	if one('e', 'E') {
		one('+', '-')
		digits()
	}
	return text.text()
}

// readString reads a string, and returns its text if that is wanted.
func (s *scanner) readString(wanted bool) string {
	if s.next != '"' {
		s.unexpected()
	}
	text := newExcerpt(wanted)
	for {
		s.step()
		s.plain(text)
		c := s.next
		switch {
		case c == '"':
			s.step()
			return text.text()
		case c == end:
			s.unexpected()
		case c < ' ':
			s.wrong("a string holds the control character %q", c)
		case c == '\\':
			c = s.escape()
		}
		text.add(c)
	}
}

// plain takes what is in the buffer up to the first character that is not plain ASCII, at once: this is most of a file.
func (s *scanner) plain(text *excerpt) {
	if s.width > 1 || !isPlain(s.unit) {
		return
	}
	ahead, err := s.from.Peek(s.from.Buffered())
	must(err)
	n := 0
	for n < len(ahead) && isPlain(ahead[n:n+1]) {
		n++
	}
	if n == 0 {
		return
	}
	text.add(s.next)
	text.put(ahead[:n-1]...)
	s.write(s.unit)
	s.write(ahead[:n-1])
	s.backing[0], s.next = ahead[n-1], rune(ahead[n-1])
	s.at += int64(n)
	_, err = s.from.Discard(n)
	must(err)
}

func isPlain(unit []byte) bool {
	return len(unit) == 1 && ' ' <= unit[0] && unit[0] < utf8.RuneSelf && unit[0] != '"' && unit[0] != '\\'
}

// escapes are the characters that stand behind a backslash for one.
var escapes = map[rune]rune{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func (s *scanner) escape() rune {
	s.step()
	if c, ok := escapes[s.next]; ok {
		return c
	}
	if s.next != 'u' {
		s.unexpected()
	}
	var c rune
	for range 4 {
		s.step()
		digit := strings.IndexRune("0123456789abcdef", unicode.ToLower(s.next))
		if s.next > unicode.MaxASCII || digit < 0 {
			s.unexpected()
		}
		c = c<<4 | rune(digit)
	}
	return c
}

// encoding detects as Python does in which encoding the text is, and takes the byte order mark.
func (s *scanner) encoding() {
	head, err := s.from.Peek(4)
	if !errors.Is(err, io.EOF) {
		must(err)
	}
	mark := 0
	s.width = 1
	switch {
	case bytes.HasPrefix(head, []byte("\xff\xfe\x00\x00")):
		s.width, s.little, mark = 4, true, 4
	case bytes.HasPrefix(head, []byte("\x00\x00\xfe\xff")):
		s.width, mark = 4, 4
	case bytes.HasPrefix(head, []byte("\xff\xfe")):
		s.width, s.little, mark = 2, true, 2
	case bytes.HasPrefix(head, []byte("\xfe\xff")):
		s.width, mark = 2, 2
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		mark = 3
	case len(head) == 4 && head[0] == 0 && head[1] == 0:
		s.width = 4
	case len(head) == 4 && head[1] == 0 && head[2] == 0 && head[3] == 0:
		s.width, s.little = 4, true
	case len(head) >= 2 && head[0] == 0:
		s.width = 2
	case len(head) >= 2 && head[1] == 0:
		s.width, s.little = 2, true
	}
	_, err = io.CopyN(s.to, s.from, int64(mark))
	must(err)
	s.at = int64(mark)
	s.read()
}

func (s *scanner) step() {
	s.write(s.unit)
	s.read()
}

func (s *scanner) write(text []byte) {
	if !s.hold {
		_, err := s.to.Write(text)
		must(err)
	}
}

// read reads a character, of UTF-16 a unit. Halves of one that stand alone are taken in every encoding, as Python does.
func (s *scanner) read() {
	s.unit = s.backing[:s.width]
	if s.width == 1 {
		s.readUTF8()
		return
	}
	n, err := io.ReadFull(s.from, s.unit)
	s.at += int64(n)
	switch {
	case n == 0 && errors.Is(err, io.EOF):
		s.next, s.unit = end, nil
		return
	case errors.Is(err, io.ErrUnexpectedEOF):
		s.wrong("it ends within a character")
	}
	must(err)
	var c uint32
	for i := range s.unit {
		b := s.unit[i]
		if s.little {
			b = s.unit[s.width-1-i]
		}
		c = c<<8 | uint32(b)
	}
	if c > utf8.MaxRune {
		s.wrong("it holds a character that there is not")
	}
	s.next = rune(c)
}

func (s *scanner) readUTF8() {
	b, err := s.from.ReadByte()
	if errors.Is(err, io.EOF) {
		s.next, s.unit = end, nil
		return
	}
	must(err)
	s.at++
	s.backing[0], s.next = b, rune(b)
	if b < utf8.RuneSelf {
		return
	}
	more := 0
	switch {
	case b&0xe0 == 0xc0:
		more = 1
	case b&0xf0 == 0xe0:
		more = 2
	case b&0xf8 == 0xf0:
		more = 3
	}
	n, err := io.ReadFull(s.from, s.backing[1:1+more])
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		must(err)
	}
	s.at += int64(n)
	s.unit = s.backing[:1+n]
	c, size := utf8.DecodeRune(s.unit)
	half := more == 2 && n == 2 && b == 0xed && s.unit[1]&0xe0 == 0xa0 && s.unit[2]&0xc0 == 0x80
	switch {
	case half:
		c = 0xd000 | rune(s.unit[1]&0x3f)<<6 | rune(s.unit[2]&0x3f)
	case c == utf8.RuneError && size <= 1 || size != len(s.unit):
		s.wrong("it is not UTF-8")
	}
	s.next = c
}
