package sample

import (
	"bufio"
	"errors"
	"io"
	"math/bits"
)

// Elements of Matroska and WebM that are looked at; of others only the length counts.
// https://www.rfc-editor.org/rfc/rfc9559.html
const (
	ebmlHeader   = 0x1A45DFA3
	ebmlSegment  = 0x18538067
	ebmlTracks   = 0x1654AE6B
	ebmlTrack    = 0xAE
	ebmlKind     = 0x83 // of a track: 1 is video
	ebmlCluster  = 0x1F43B675
	ebmlBlocks   = 0xA0
	ebmlBlock    = 0xA3
	ebmlMost     = 1 << 20 // elements; an hour has 200,000
	ebmlMaxWidth = 8       // bytes of a number
)

// checkMatroska walks the elements, which must cover the file exactly, and checks that
// there is a video track and a frame. A writer that was cut off leaves an element that
// ends behind the file, or no frame.
func checkMatroska(f io.Reader, size int64) error {
	r := &ebml{from: bufio.NewReader(f)}
	video, frames := false, 0
	for n := 0; r.at < size; n++ {
		id, length, err := r.element()
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return broken("is a truncated Matroska file")
		case err != nil:
			return err
		case n == 0 && id != ebmlHeader:
			return broken("is no Matroska file")
		case n == ebmlMost:
			return broken("is no usable Matroska file: it has more than %d elements", n)
		case length > size-r.at:
			return broken("is a truncated Matroska file: an element ends %d bytes behind the file", length-(size-r.at))
		}
		switch id {
		case ebmlSegment, ebmlTracks, ebmlTrack, ebmlCluster:
			continue // what lies in it comes next
		case ebmlKind:
			kind := byte(0)
			if length == 1 {
				kind, err = r.from.ReadByte()
				r.at++
			}
			if err != nil {
				return broken("is a truncated Matroska file")
			}
			if length == 1 {
				video = video || kind == 1
				continue
			}
		case ebmlBlocks, ebmlBlock:
			frames++
		}
		if length < 0 {
			return broken("is a damaged Matroska file: an element has no length")
		}
		if skipped, err := io.CopyN(io.Discard, r.from, length); err != nil {
			return broken("is a truncated Matroska file: %d bytes are missing", length-skipped)
		}
		r.at += length
	}
	switch {
	case !video:
		return broken("is a Matroska file without a video track")
	case frames == 0:
		return broken("is a Matroska file without frames")
	}
	return nil
}

// ebml reads the elements of a Matroska file.
type ebml struct {
	from *bufio.Reader
	at   int64
}

// element reads an element's id and length. A length that its writer did not know
// is -1.
func (r *ebml) element() (id uint64, length int64, err error) {
	if id, _, err = r.number(); err != nil {
		return 0, 0, err
	}
	n, width, err := r.number()
	if err != nil {
		return 0, 0, err
	}
	n &^= 1 << (7 * width)
	if n == 1<<(7*width)-1 {
		return id, -1, nil
	}
	return id, int64(n), nil
}

// number reads a number of up to 8 bytes, the first of which says how many they are.
// The bit that says so stays.
func (r *ebml) number() (n uint64, width int, err error) {
	first, err := r.from.ReadByte()
	if err != nil {
		return 0, 0, err
	}
	if width = bits.LeadingZeros8(first) + 1; width > ebmlMaxWidth {
		return 0, 0, broken("is a damaged Matroska file: it has a number of more than %d bytes", ebmlMaxWidth)
	}
	n = uint64(first)
	for range width - 1 {
		next, err := r.from.ReadByte()
		if err != nil {
			return 0, 0, io.ErrUnexpectedEOF
		}
		n = n<<8 | uint64(next)
	}
	r.at += int64(width)
	return n, width, nil
}
