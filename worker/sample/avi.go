package sample

import (
	"encoding/binary"
	"io"
)

// maxAVIHeader bounds the header list of an AVI, which is read into memory. Writers
// reserve a few kB for a larger index in it.
const maxAVIHeader = 1 << 20

// checkAVI checks the length of the RIFF chunk and that the movie list has a
// frame. A writer that was cut off leaves a length of zero or beyond the file.
func checkAVI(f io.ReadSeeker, size int64) (m Media, err error) {
	var head [12]byte
	if _, err := io.ReadFull(f, head[:]); err != nil || string(head[:4]) != "RIFF" || string(head[8:]) != "AVI " {
		return m, broken("is no AVI")
	}
	if length := int64(binary.LittleEndian.Uint32(head[4:])) + 8; length > size || length < 12 {
		return m, broken("is a truncated AVI: it says it has %d bytes and has %d", length, size)
	}
	for at := int64(12); at+12 <= size; {
		if readAt(f, at, head[:]) != nil {
			return m, broken("is a truncated AVI")
		}
		length := int64(binary.LittleEndian.Uint32(head[4:]))
		if at+8+length > size {
			return m, broken("is a truncated AVI")
		}
		switch kind := string(head[8:]); {
		case string(head[:4]) != "LIST":
		case kind == "hdrl" && 4 <= length && length <= maxAVIHeader:
			header := make([]byte, length-4)
			if _, err := io.ReadFull(f, header); err != nil {
				return m, broken("is a truncated AVI")
			}
			m.describeAVI(header)
		case kind == "movi" && length <= 4:
			return m, broken("is an AVI without frames")
		case kind == "movi":
			return m, nil
		}
		at += 8 + length + length%2
	}
	return m, broken("is an AVI without frames")
}

// describeAVI reads the lists of streams in an AVI's header, up to the first of video.
func (m *Media) describeAVI(header []byte) {
	video := false
	for len(header) >= 8 && m.Width == 0 {
		kind, length := string(header[:4]), int64(binary.LittleEndian.Uint32(header[4:]))
		if kind == "LIST" {
			length = 4 // what is in it comes next
		}
		if length+length%2 > int64(len(header)-8) {
			return
		}
		data := header[8 : 8+length]
		switch {
		case kind == "strh" && len(data) >= 36:
			if video = string(data[:4]) == "vids"; video {
				scale, rate := binary.LittleEndian.Uint32(data[20:]), binary.LittleEndian.Uint32(data[24:])
				frames := binary.LittleEndian.Uint32(data[32:])
				m.timing(int(frames), float64(frames)*float64(scale)/float64(rate))
			}
		case kind == "strf" && video:
			m.describeBitmap(data)
		}
		header = header[8+length+length%2:]
	}
}
