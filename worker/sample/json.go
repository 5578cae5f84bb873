package sample

import (
	"bufio"
	"fmt"
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

func (s *scanner) wrong(format string, args ...any) error {
	return broken("is no JSON: %s, at byte %d", fmt.Sprintf(format, args...), s.at)
}

func (s *scanner) blanks() error {
	for s.next == ' ' || s.next == '\t' || s.next == '\n' || s.next == '\r' {
		if err := s.step(); err != nil {
			return err
		}
	}
	return nil
}

// take takes the character c and the blanks behind it.
func (s *scanner) take(c rune) error {
	if s.next != c {
		return s.unexpected()
	}
	if err := s.step(); err != nil {
		return err
	}
	return s.blanks()
}

func (s *scanner) unexpected() error {
	if s.next == end {
		return s.wrong("it is cut off")
	}
	return s.wrong("%q stands where it cannot", s.next)
}

// document reads all of the text.
func (s *scanner) document() error {
	if err := s.blanks(); err != nil {
		return err
	}
	for {
		if err := s.valueOrName(); err != nil {
			return err
		}
		if s.began { // the first item of what was opened is next
			continue
		}
		for more := true; more; {
			if s.replaced == len(s.open) && s.hold {
				s.hold = false
			}
			if err := s.blanks(); err != nil {
				return err
			}
			switch {
			case len(s.open) == 0 && s.next == end:
				return nil
			case len(s.open) == 0:
				return s.unexpected()
			case s.next == ',':
				more = false
				if err := s.take(','); err != nil {
					return err
				}
			default:
				if err := s.closeBracket(); err != nil {
					return err
				}
			}
		}
	}
}

// closeBracket takes the end of the list or object that was opened last.
func (s *scanner) closeBracket() error {
	last := len(s.open) - 1
	if s.next != s.open[last]+2 { // ']' and '}' in ASCII
		return s.unexpected()
	}
	if s.isTop() {
		s.hashes.add(s.item)
		s.item = ""
	}
	s.open = s.open[:last]
	return s.step()
}

// isTop reports whether the object that is open is at the top, or in a list at the top.
func (s *scanner) isTop() bool {
	n := len(s.open)
	return n == 1 && s.open[0] == '{' || n == 2 && s.open[0] == '[' && s.open[1] == '{'
}

// valueOrName reads an item: a value, in an object after its name. Of a list or an
// object that holds something it reads the beginning, and sets began.
func (s *scanner) valueOrName() error {
	s.began = false
	name := ""
	if n := len(s.open); n > 0 && s.open[n-1] == '{' {
		var err error
		if name, err = s.readString(s.isTop()); err != nil {
			return err
		}
		if err := s.blanks(); err != nil {
			return err
		}
		if err := s.take(':'); err != nil {
			return err
		}
	}
	if name == "task_id" {
		for _, b := range s.value {
			unit := [4]byte{}
			unit[map[bool]int{true: 0, false: s.width - 1}[s.little]] = b
			if _, err := s.to.Write(unit[:s.width]); err != nil {
				return err
			}
		}
		s.hold, s.replaced = true, len(s.open)
	}
	text, kind := "", s.next
	var err error
	switch c := s.next; {
	case c == '{' || c == '[':
		if s.open = append(s.open, c); len(s.open) > maxDepth {
			return s.wrong("more than %d lists and objects lie in each other", maxDepth)
		}
		if err = s.take(c); err == nil {
			if s.began = s.next != c+2; !s.began {
				err = s.closeBracket()
			}
		}
	case c == '"':
		text, err = s.readString(name == "task_id" || name == "param_hash")
	case c == '-' || '0' <= c && c <= '9':
		text, err = s.readNumber(name == "param_hash")
	default:
		for _, word := range []string{"null", "true", "false", "NaN", "Infinity"} {
			if c == rune(word[0]) {
				kind, err = 0, s.word(word)
			}
		}
		if kind != 0 {
			err = s.unexpected()
		}
	}
	switch {
	case err != nil:
		return err
	case name == "task_id" && (kind != '"' || text != s.id):
		s.found.others++
	case name == "param_hash":
		s.item = text
	}
	return nil
}

func (s *scanner) word(word string) error {
	for _, c := range word {
		if s.next != c {
			return s.unexpected()
		}
		if err := s.step(); err != nil {
			return err
		}
	}
	return nil
}

// readNumber returns a number as it is written, if that is wanted; "" for -Infinity.
func (s *scanner) readNumber(wanted bool) (string, error) {
	text := newExcerpt(wanted)
	digits := func() (n int, err error) {
		for ; '0' <= s.next && s.next <= '9'; n++ {
			text.add(s.next)
			if err := s.step(); err != nil {
				return n, err
			}
		}
		if n == 0 {
			return n, s.unexpected()
		}
		return n, nil
	}
	sign := func(signs ...rune) error {
		if !slices.Contains(signs, s.next) {
			return nil
		}
		text.add(s.next)
		return s.step()
	}
	if err := sign('-'); err != nil {
		return "", err
	}
	if s.next == 'I' {
		return "", s.word("Infinity")
	}
	zero := s.next == '0'
	if n, err := digits(); err != nil {
		return "", err
	} else if zero && n > 1 {
		return "", s.wrong("a number begins with 0")
	}
	if s.next == '.' {
		if err := sign('.'); err != nil {
			return "", err
		}
		if _, err := digits(); err != nil {
			return "", err
		}
	}
	if s.next == 'e' || s.next == 'E' {
		if err := sign('e', 'E'); err != nil {
			return "", err
		}
		if err := sign('+', '-'); err != nil {
			return "", err
		}
		if _, err := digits(); err != nil {
			return "", err
		}
	}
	return text.text(), nil
}

// readString reads a string, and returns its text if that is wanted.
func (s *scanner) readString(wanted bool) (string, error) {
	if s.next != '"' {
		return "", s.unexpected()
	}
	text := newExcerpt(wanted)
	for {
		if err := s.step(); err != nil {
			return "", err
		}
		if err := s.plain(text); err != nil {
			return "", err
		}
		c := s.next
		switch {
		case c == '"':
			return text.text(), s.step()
		case c == end:
			return "", s.unexpected()
		case c < ' ':
			return "", s.wrong("a string holds the control character %q", c)
		case c == '\\':
			var err error
			if c, err = s.escape(); err != nil {
				return "", err
			}
		}
		text.add(c)
	}
}

// plain takes what is in the buffer up to the first character that is not plain
// ASCII, all at once: this is most of a file.
func (s *scanner) plain(text *excerpt) error {
	if s.width > 1 || !isPlain(s.unit) {
		return nil
	}
	ahead, err := s.from.Peek(s.from.Buffered())
	if err != nil {
		return err
	}
	n := 0
	for n < len(ahead) && isPlain(ahead[n:n+1]) {
		n++
	}
	if n == 0 {
		return nil
	}
	text.add(s.next)
	text.put(ahead[:n-1]...)
	if !s.hold {
		if _, err := s.to.Write(s.unit); err != nil {
			return err
		}
		if _, err := s.to.Write(ahead[:n-1]); err != nil {
			return err
		}
	}
	s.backing[0], s.next = ahead[n-1], rune(ahead[n-1])
	s.at += int64(n)
	_, err = s.from.Discard(n)
	return err
}

func isPlain(unit []byte) bool {
	return len(unit) == 1 && ' ' <= unit[0] && unit[0] < utf8.RuneSelf && unit[0] != '"' && unit[0] != '\\'
}

func (s *scanner) escape() (rune, error) {
	if err := s.step(); err != nil {
		return 0, err
	}
	short := map[rune]rune{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}
	if c, ok := short[s.next]; ok {
		return c, nil
	}
	if s.next != 'u' {
		return 0, s.unexpected()
	}
	var c rune
	for range 4 {
		if err := s.step(); err != nil {
			return 0, err
		}
		digit := strings.IndexRune("0123456789abcdef", unicode.ToLower(s.next))
		if s.next > unicode.MaxASCII || digit < 0 {
			return 0, s.unexpected()
		}
		c = c<<4 | rune(digit)
	}
	return c, nil
}
