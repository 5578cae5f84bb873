package sample

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/bits"

	"github.com/Eyevinn/mp4ff/mp4"
)

// maxMoov bounds the index of a video, which is read into memory: 1 MiB holds the tables of an hour.
const maxMoov = 8 << 20

// checkMP4 walks the boxes, which must cover the file exactly, and checks that
// there is a video track whose frames all lie inside the file.
func checkMP4(f io.ReadSeeker, size int64) Media {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case stopped:
			panic(p)
		default: // of mp4ff on hostile tables
			must(broken("is a damaged MP4: %v", p))
		}
	}()
	const truncated = "is a truncated MP4"
	var head [16]byte
	var moov *mp4.MoovBox
	var track *mp4.TrakBox // the first one of video
	var raw []byte         // that track
	fragments, frames, duration := 0, 0, uint64(0)
	for at := int64(0); at < size; {
		fillAt(f, at, head[:8], truncated)
		length, kind, header := int64(binary.BigEndian.Uint32(head[:4])), string(head[4:8]), int64(8)
		switch length {
		case 0: // to the end of the file
			length = size - at
		case 1:
			fill(f, head[8:], truncated)
			length, header = int64(binary.BigEndian.Uint64(head[8:])), 16
		}
		if length < header || length > size-at {
			must(broken("is a truncated MP4: its %q box ends %d bytes behind the file", kind, at+length-size))
		}
		if at == 0 && kind != "ftyp" {
			must(broken("is no MP4: it begins with %q", kind))
		}
		if kind == "moov" || kind == "moof" {
			if length > maxMoov {
				must(broken("is no usable MP4: its index has %d bytes", length))
			}
			index := make([]byte, length)
			fillAt(f, at, index, truncated)
			box, err := mp4.DecodeBox(0, bytes.NewReader(index))
			switch box := box.(type) {
			case *mp4.MoovBox:
				moov = box
				track, raw = videoTrack(box, index[header:])
			case *mp4.MoofBox:
				n, d := framesOf(box, moov, track)
				frames, duration = frames+n, duration+d
			}
			if kind == "moof" {
				fragments++ // one that cannot be understood has no frames
			} else if err != nil {
				must(broken("is a damaged MP4: %v", err))
			}
		}
		at += length
	}
	need(moov != nil, "is an MP4 without an index (moov): its writer was cut off")
	need(track != nil, "is an MP4 without a video track")
	need(fragments == 0 || frames > 0, "is an MP4 without frames")
	if fragments == 0 {
		frames, duration = checkTrack(track, size)
	}
	return describeTrack(track, raw, frames, duration)
}

// fillAt is fill from a place in a file.
func fillAt(f io.ReadSeeker, at int64, p []byte, without string) {
	_, err := f.Seek(at, io.SeekStart)
	must(err)
	fill(f, p, without)
}

// videoTrack returns the first video track, and its bytes if they are found.
func videoTrack(moov *mp4.MoovBox, data []byte) (track *mp4.TrakBox, raw []byte) {
	var bodies [][]byte
	for kind, body := range boxes(data) {
		if kind == "trak" {
			bodies = append(bodies, body)
		}
	}
	for n, t := range moov.Traks {
		if t.Mdia != nil && t.Mdia.Hdlr != nil && t.Mdia.Hdlr.HandlerType == "vide" {
			if n < len(bodies) {
				raw = bodies[n]
			}
			return t, raw
		}
	}
	return nil, nil
}

func describeTrack(track *mp4.TrakBox, raw []byte, frames int, duration uint64) (m Media) {
	// mp4ff on hostile tables: they refuse no video whose frames are there. So need and must below this refuse none.
	defer func() { _ = recover() }()
	m.Frames = frames
	if track.Mdia.Mdhd != nil && track.Mdia.Mdhd.Timescale > 0 {
		m.timing(frames, float64(duration)/float64(track.Mdia.Mdhd.Timescale))
	}
	for _, kind := range []string{"mdia", "minf", "stbl", "stsd"} {
		raw = box(raw, kind)
	}
	for kind, entry := range boxes(raw[min(8, len(raw)):]) { // behind version and count
		m.describeEntry(kind, entry)
		break
	}
	return m
}

// framesOf counts the frames of the track in a fragment, and the time they take.
func framesOf(fragment *mp4.MoofBox, moov *mp4.MoovBox, track *mp4.TrakBox) (n int, duration uint64) {
	if track == nil || track.Tkhd == nil {
		return 0, 0
	}
	each := uint32(0) // duration of a frame, where its own is not given
	if moov.Mvex != nil {
		for _, d := range moov.Mvex.Trexs {
			if d.TrackID == track.Tkhd.TrackID {
				each = d.DefaultSampleDuration
			}
		}
	}
	for _, part := range fragment.Trafs {
		if part.Tfhd == nil || part.Tfhd.TrackID != track.Tkhd.TrackID {
			continue
		}
		if part.Tfhd.HasDefaultSampleDuration() {
			each = part.Tfhd.DefaultSampleDuration
		}
		for _, run := range part.Truns {
			n += int(run.SampleCount())
			duration += run.Duration(each)
		}
	}
	return n, duration
}

// checkTrack checks the tables of a track without fragments, and returns its frames and the time they take.
func checkTrack(track *mp4.TrakBox, size int64) (frames int, duration uint64) {
	need(track.Mdia.Minf != nil && track.Mdia.Minf.Stbl != nil, "is an MP4 without a frame table")
	table := track.Mdia.Minf.Stbl
	need(table.Stsz != nil && table.Stsc != nil && table.Stsz.SampleNumber > 0, "is an MP4 without frames")
	all := table.Stsz.SampleNumber
	need(int64(all) <= size, "is a damaged MP4: %d frames in %d bytes", all, size)
	var offsets []uint64
	switch {
	case table.Stco != nil:
		for _, o := range table.Stco.ChunkOffset {
			offsets = append(offsets, uint64(o))
		}
	case table.Co64 != nil:
		offsets = table.Co64.ChunkOffset
	}
	frame := uint32(1)
	for n, offset := range offsets {
		chunk := table.Stsc.GetChunk(uint32(n + 1))
		end := offset
		for range chunk.NrSamples {
			need(frame <= all, "is a damaged MP4: its tables disagree")
			end += uint64(table.Stsz.GetSampleSize(int(frame)))
			frame++
		}
		if end > uint64(size) {
			must(broken("is a truncated MP4: a frame ends %d bytes behind the file", end-uint64(size)))
		}
	}
	need(frame == all+1, "is a damaged MP4: %d of %d frames have a place", frame-1, all)
	if table.Stts != nil {
		for i, count := range table.Stts.SampleCount {
			duration += uint64(count) * uint64(table.Stts.SampleTimeDelta[i])
		}
	}
	return int(all), duration
}

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
		if n >= ebmlMost {
			must(broken("is no usable Matroska file: it has more than %d elements", ebmlMost))
		}
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
	seconds := cmp.Or(m.duration*m.unit, float64(m.frames)*float64(t.frame)) / 1e9
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
