package sample

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"math/bits"
)

// Elements of Matroska and WebM that are read; of others only the length counts.
// https://www.rfc-editor.org/rfc/rfc9559.html
const (
	ebmlHeader        = 0x1A45DFA3
	ebmlSegment       = 0x18538067
	ebmlInfo          = 0x1549A966
	ebmlTimestamp     = 0x2AD7B1 // nanoseconds of the unit of the duration
	ebmlDuration      = 0x4489   // a float
	ebmlTracks        = 0x1654AE6B
	ebmlTrack         = 0xAE
	ebmlNumber        = 0xD7
	ebmlKind          = 0x83     // of a track: 1 is video
	ebmlFrameDuration = 0x23E383 // nanoseconds
	ebmlCodec         = 0x86
	ebmlPrivate       = 0x63A2 // the codec's configuration
	ebmlVideo         = 0xE0
	ebmlWidth         = 0xB0
	ebmlHeight        = 0xBA
	ebmlCluster       = 0x1F43B675
	ebmlGroup         = 0xA0 // of blocks
	ebmlBlock         = 0xA1
	ebmlSimpleBlock   = 0xA3
	ebmlMost          = 1 << 20 // elements; an hour has 200,000
	ebmlMaxWidth      = 8       // bytes of a number
)

// ebmlRead is how many bytes of an element are read at most.
var ebmlRead = map[uint64]int64{ebmlTimestamp: 8, ebmlDuration: 8, ebmlNumber: 8, ebmlKind: 8, ebmlFrameDuration: 8,
	ebmlCodec: 64, ebmlPrivate: 64 << 10, ebmlWidth: 8, ebmlHeight: 8, ebmlBlock: 16, ebmlSimpleBlock: 16}

type matroskaFile struct {
	unit, duration float64
	track, video   matroskaTrack // the one being read, and the first one of video
	frames         int           // of video
	first          []byte        // beginning of the first frame
}

type matroskaTrack struct {
	number, kind, frame, width, height uint64
	codec                              string
	private                            []byte
}

// checkMatroska walks the elements, which must cover the file exactly, and checks that there is a video track and a
// frame of it. A writer that was cut off leaves an element that ends behind the file, or no frame.
func checkMatroska(f io.Reader, size int64) Media {
	const truncated = "is a truncated Matroska file"
	r := &ebml{from: bufio.NewReader(f)}
	file := matroskaFile{unit: 1e6}
	for n := 0; r.at < size; n++ {
		id, length, err := r.element()
		need(!errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF), truncated)
		must(err)
		need(n > 0 || id == ebmlHeader, "is no Matroska file")
		need(n < ebmlMost, "is no usable Matroska file: it has more than %d elements", ebmlMost)
		if behind := length - (size - r.at); behind > 0 {
			must(broken("is a truncated Matroska file: an element ends %d bytes behind the file", behind))
		}
		switch id {
		case ebmlTrack:
			file.track = matroskaTrack{}
			continue
		case ebmlSegment, ebmlInfo, ebmlTracks, ebmlVideo, ebmlCluster, ebmlGroup:
			continue // what lies in it comes next
		}
		need(length >= 0, "is a damaged Matroska file: an element has no length")
		data := make([]byte, min(length, ebmlRead[id]))
		if _, err = io.ReadFull(r.from, data); err == nil {
			_, err = io.CopyN(io.Discard, r.from, length-int64(len(data)))
		}
		need(err == nil, truncated)
		r.at += length
		file.take(id, data)
	}
	need(file.video.kind == 1, "is a Matroska file without a video track")
	need(file.frames > 0, "is a Matroska file without frames")
	return file.media()
}

func (m *matroskaFile) take(id uint64, data []byte) {
	number := uint64(0)
	if len(data) <= 8 {
		for _, b := range data {
			number = number<<8 | uint64(b)
		}
	}
	switch id {
	case ebmlTimestamp:
		m.unit = float64(number)
	case ebmlDuration:
		if m.duration = math.Float64frombits(number); len(data) == 4 {
			m.duration = float64(math.Float32frombits(uint32(number)))
		}
	case ebmlNumber:
		m.track.number = number
	case ebmlKind:
		m.track.kind = number
	case ebmlFrameDuration:
		m.track.frame = number
	case ebmlCodec:
		m.track.codec = string(data)
	case ebmlPrivate:
		m.track.private = data
	case ebmlWidth:
		m.track.width = number
	case ebmlHeight:
		m.track.height = number
	case ebmlBlock, ebmlSimpleBlock: // number of its track, time and flags, and the frame
		r := &ebml{from: bufio.NewReader(bytes.NewReader(data))}
		track, width, err := r.number()
		if err != nil || track&^(1<<(7*width)) != m.video.number || m.video.kind != 1 {
			return
		}
		if m.frames++; m.frames == 1 && len(data) > width+3 {
			m.first = data[width+3:]
		}
	}
	if m.track.kind == 1 && (m.video.kind != 1 || m.track.number == m.video.number) {
		m.video = m.track // its elements stand in any order
	}
}

func (m *matroskaFile) media() Media {
	t := m.video
	file := Media{Width: int(t.width), Height: int(t.height), Codec: codecs[t.codec]}
	if t.codec == "V_MS/VFW/FOURCC" {
		file.describeBitmap(t.private)
	}
	file.configure(t.private)
	if file.Codec == "vp9" && len(m.first) > 0 && m.first[0]&0xf0 == 0x80 { // profile 0
		file.PixelFormat = "yuv420p"
	}
	seconds := m.duration * m.unit / 1e9
	if seconds == 0 {
		seconds = float64(m.frames) * float64(t.frame) / 1e9
	}
	if file.timing(m.frames, seconds); t.frame > 0 {
		file.FPS = round6(1e9 / float64(t.frame))
	}
	return file
}

type ebml struct {
	from *bufio.Reader
	at   int64
}

// element reads an element's id and length. A length that its writer did not know is -1.
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

// number reads a number of up to 8 bytes, the first of which has a bit for how many they are. That bit stays.
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
