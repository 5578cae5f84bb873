package export

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
)

// text returns a text file as UTF-8: byte for byte if it is that already. JSON may be in UTF-16 or UTF-32, too, with or
// without a byte order mark. Anything else has U+FFFD in the place of what is no character.
func text(file []byte) string {
	if utf8.Valid(file) && !bytes.Contains(file, []byte{0}) {
		return string(file)
	}
	if decoding := decodingOf(file); decoding != nil {
		if decoded, err := decoding.NewDecoder().Bytes(file); err == nil {
			return string(decoded)
		}
	}
	return strings.ToValidUTF8(string(file), "\uFFFD")
}

// decodingOf goes by the byte order mark, or by where the zeros of the first ASCII characters
// are, as Python's json does.
func decodingOf(file []byte) encoding.Encoding {
	head := append(bytes.Clone(file[:min(4, len(file))]), 1, 1, 1, 1)
	zero := func(i int) bool { return head[i] == 0 }
	switch {
	case bytes.HasPrefix(file, []byte{0xFF, 0xFE, 0, 0}) || !zero(0) && zero(1) && zero(2) && zero(3):
		return utf32.UTF32(utf32.LittleEndian, utf32.UseBOM)
	case bytes.HasPrefix(file, []byte{0, 0, 0xFE, 0xFF}) || zero(0) && zero(1) && zero(2) && !zero(3):
		return utf32.UTF32(utf32.BigEndian, utf32.UseBOM)
	case bytes.HasPrefix(file, []byte{0xFF, 0xFE}) || !zero(0) && zero(1):
		return unicode.UTF16(unicode.LittleEndian, unicode.UseBOM)
	case bytes.HasPrefix(file, []byte{0xFE, 0xFF}) || zero(0) && !zero(1):
		return unicode.UTF16(unicode.BigEndian, unicode.UseBOM)
	}
	return nil
}
