package sample

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"unicode/utf8"
)

// encoding detects as Python does in which encoding the text is, and takes the byte order mark.
func (s *scanner) encoding() error {
	head, err := s.from.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	mark := 0
	zero := func(places ...int) bool {
		for i, b := range head {
			if (b == 0) != slices.Contains(places, i) {
				return false
			}
		}
		return true
	}
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
	case len(head) == 4 && zero(0, 1, 2):
		s.width = 4
	case len(head) == 4 && zero(1, 2, 3):
		s.width, s.little = 4, true
	case len(head) >= 2 && head[0] == 0:
		s.width = 2
	case len(head) >= 2 && head[1] == 0:
		s.width, s.little = 2, true
	}
	if _, err := io.CopyN(s.to, s.from, int64(mark)); err != nil {
		return err
	}
	s.at = int64(mark)
	return s.read()
}

// step writes the current character, and reads the next.
func (s *scanner) step() error {
	if !s.hold {
		if _, err := s.to.Write(s.unit); err != nil {
			return err
		}
	}
	return s.read()
}

// read reads a character: of UTF-16 a unit, which may be half of one. Halves that
// stand alone are taken in every encoding, as Python does.
func (s *scanner) read() error {
	s.unit = s.backing[:s.width]
	if s.width == 1 {
		return s.readUTF8()
	}
	n, err := io.ReadFull(s.from, s.unit)
	s.at += int64(n)
	switch {
	case n == 0 && errors.Is(err, io.EOF):
		s.next, s.unit = end, nil
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return s.wrong("it ends within a character")
	case err != nil:
		return err
	}
	var c uint32
	for i := range s.unit {
		b := s.unit[i]
		if s.little {
			b = s.unit[s.width-1-i]
		}
		c = c<<8 | uint32(b)
	}
	if c > utf8.MaxRune {
		return s.wrong("it holds a character that there is not")
	}
	s.next = rune(c)
	return nil
}

func (s *scanner) readUTF8() error {
	b, err := s.from.ReadByte()
	if errors.Is(err, io.EOF) {
		s.next, s.unit = end, nil
		return nil
	}
	if err != nil {
		return err
	}
	s.at++
	s.backing[0], s.next = b, rune(b)
	if b < utf8.RuneSelf {
		return nil
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
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	s.at += int64(n)
	s.unit = s.backing[:1+n]
	c, size := utf8.DecodeRune(s.unit)
	half := more == 2 && n == 2 && b == 0xed && s.unit[1]&0xe0 == 0xa0 && s.unit[2]&0xc0 == 0x80
	switch {
	case half:
		c = 0xd000 | rune(s.unit[1]&0x3f)<<6 | rune(s.unit[2]&0x3f)
	case c == utf8.RuneError && size <= 1 || size != len(s.unit):
		return s.wrong("it is not UTF-8")
	}
	s.next = c
	return nil
}
