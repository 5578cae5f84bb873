package sample

import (
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strings"

	"github.com/Eyevinn/mp4ff/av1"
	"github.com/Eyevinn/mp4ff/avc"
	"github.com/Eyevinn/mp4ff/bits"
	"github.com/Eyevinn/mp4ff/hevc"
	"github.com/Eyevinn/mp4ff/mp4"
)

// Media are the facts of a video or a picture that stand in its file, without decoding it. What the file does not have
// is zero; of a picture only width and height are known. Codec and pixel format have the names that ffprobe gives them.
type Media struct {
	Width       int     `json:"width,omitempty"`   // pixels
	Height      int     `json:"height,omitempty"`  // pixels
	Frames      int     `json:"frames,omitempty"`  // of the first video track
	FPS         float64 `json:"fps,omitempty"`     // average, to 6 decimal places
	Seconds     float64 `json:"seconds,omitempty"` // to 6 decimal places
	Codec       string  `json:"codec,omitempty"`   // h264, mpeg4, vp9
	PixelFormat string  `json:"pixel_format,omitempty"`
	Colour      string  `json:"colour,omitempty"` // #rrggbb, of a PNG that has one colour; #rrggbbaa if it has alpha
}

// timing sets the frames and, where the duration is known, seconds and frame rate.
func (m *Media) timing(frames int, seconds float64) {
	m.Frames = frames
	if seconds > 0 && !math.IsInf(seconds, 0) {
		m.Seconds, m.FPS = round6(seconds), round6(float64(frames)/seconds)
	}
}

func round6(x float64) float64 { return math.Round(x*1e6) / 1e6 }

// codecs are the containers' names of codecs: sample entries of MP4, ids of Matroska, and FourCCs of AVI in capitals.
var codecs = map[string]string{
	"avc1": "h264", "avc3": "h264", "V_MPEG4/ISO/AVC": "h264", "H264": "h264", "X264": "h264", "AVC1": "h264",
	"hvc1": "hevc", "hev1": "hevc", "V_MPEGH/ISO/HEVC": "hevc", "HEVC": "hevc", "H265": "hevc",
	"V_MPEG4/ISO/ASP": "mpeg4", "FMP4": "mpeg4", "XVID": "mpeg4", "DIVX": "mpeg4", "DX50": "mpeg4", "MP4V": "mpeg4",
	"av01": "av1", "V_AV1": "av1", "AV01": "av1",
	"vp08": "vp8", "V_VP8": "vp8", "VP80": "vp8",
	"vp09": "vp9", "V_VP9": "vp9", "VP90": "vp9",
	"jpeg": "mjpeg", "V_MJPEG": "mjpeg", "MJPG": "mjpeg",
	"png ": "png", "MPNG": "png", "V_FFV1": "ffv1", "FFV1": "ffv1", "HFYU": "huffyuv",
	"\x00\x00\x00\x00": "rawvideo", "DIB ": "rawvideo", "V_UNCOMPRESSED": "rawvideo",
}

// objectTypes are the codecs of an MP4's esds box, by objectTypeIndication.
var objectTypes = map[byte]string{0x20: "mpeg4", 0x21: "h264", 0x23: "hevc", 0x60: "mpeg2video", 0x61: "mpeg2video",
	0x62: "mpeg2video", 0x63: "mpeg2video", 0x64: "mpeg2video", 0x65: "mpeg2video", 0x6a: "mpeg1video", 0x6c: "mjpeg",
	0x6d: "png"}

// describeEntry reads the body of a sample entry of an MP4: ISO/IEC 14496-12, 12.1.3.
func (m *Media) describeEntry(kind string, entry []byte) {
	const fixed = 78 // bytes in front of the boxes in it
	if len(entry) < fixed {
		return
	}
	m.Width, m.Height = int(binary.BigEndian.Uint16(entry[24:])), int(binary.BigEndian.Uint16(entry[26:]))
	m.Codec = codecs[kind]
	for kind, body := range boxes(entry[fixed:]) {
		switch kind {
		case "avcC", "hvcC", "av1C":
			m.configure(body)
		case "vpcC": // depth and chroma share a byte; the matrix is the third behind it
			if len(body) >= 10 {
				m.PixelFormat = pixelFormat([]int{1, 1, 2, 3, -1, -1, -1, -1}[body[6]>>1&7], int(body[6]>>4), false, body[9] == 0)
			}
		case "esds":
			sr := bits.NewFixedSliceReader(body)
			sr.SkipBytes(4)
			if d, _ := mp4.DecodeESDescriptor(sr, uint32(len(body)-4)); d.DecConfigDescriptor != nil {
				m.Codec = objectTypes[d.DecConfigDescriptor.ObjectType]
			}
		}
	}
	m.configure(nil)
}

// boxes yields the kind and the body of each box of an MP4 in data, up to one that is cut
// off. mp4ff does not keep them as they were: it writes some others than it has read.
func boxes(data []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for len(data) >= 8 {
			size := int(binary.BigEndian.Uint32(data))
			if size < 8 || size > len(data) || !yield(string(data[4:8]), data[8:size]) {
				return
			}
			data = data[size:]
		}
	}
}

func box(data []byte, kind string) []byte {
	for k, body := range boxes(data) {
		if k == kind {
			return body
		}
	}
	return nil
}

// configure reads the pixel format from a codec's configuration record, in MP4 or Matroska. A damaged one says nothing.
func (m *Media) configure(record []byte) {
	defer func() { _ = recover() }() // mp4ff on hostile records; need and must below this refuse none, too
	switch m.Codec {
	case "mpeg4", "vp8": // have no other
		m.PixelFormat = "yuv420p"
	case "h264":
		c, _ := avc.DecodeAVCDecConfRec(record) // what follows the parameter sets, which it cannot always read, is not needed
		if len(c.SPSnalus) == 0 {
			return
		}
		s, err := avc.ParseSPSNALUnit(c.SPSnalus[0], true)
		if err != nil {
			return
		}
		full, rgb := false, false
		if s.VUI != nil {
			full, rgb = s.VUI.VideoFullRangeFlag, s.VUI.ColourDescriptionFlag && s.VUI.MatrixCoefficients == 0
		}
		chroma := max(1, int(s.ChromaFormatIDC)) // gray comes out of the decoder as 4:2:0
		m.PixelFormat = pixelFormat(chroma, int(s.BitDepthLumaMinus8)+8, full, rgb)
	case "hevc":
		c, err := hevc.DecodeHEVCDecConfRec(record)
		if err != nil {
			return
		}
		full, rgb := false, false
		for _, unit := range c.GetNalusForType(hevc.NALU_SPS) {
			if s, err := hevc.ParseSPSNALUnit(unit); err == nil && s.VUI != nil {
				full, rgb = s.VUI.VideoFullRangeFlag, s.VUI.ColourDescriptionFlag && s.VUI.MatrixCoefficients == 0
			}
		}
		m.PixelFormat = pixelFormat(int(c.ChromaFormatIDC), int(c.BitDepthLumaMinus8)+8, full, rgb)
	case "av1":
		c, err := av1.DecodeAV1CodecConfRec(record)
		chroma := 3 - int(c.ChromaSubsamplingX) - int(c.ChromaSubsamplingY)
		if err != nil || chroma == 3 { // or RGB, which the record does not show
			return
		}
		if c.MonoChrome == 1 {
			chroma = 0
		}
		m.PixelFormat = pixelFormat(chroma, 8+2*int(c.HighBitdepth)+2*int(c.TwelveBit), false, false)
	}
}

// pixelFormat names a chroma format (0 is gray, 1 is 4:2:0, 2 is 4:2:2, 3 is 4:4:4) with so many bits of a value.
func pixelFormat(chroma, depth int, fullRange, rgb bool) string {
	if chroma < 0 || chroma > 3 || depth < 8 || depth > 16 {
		return ""
	}
	name := []string{"gray", "yuv420p", "yuv422p", "yuv444p"}[chroma]
	switch {
	case chroma == 3 && rgb:
		name = "gbrp"
	case chroma > 0 && depth == 8 && fullRange:
		name = strings.Replace(name, "yuv", "yuvj", 1)
	}
	if depth > 8 {
		name += fmt.Sprintf("%dle", depth)
	}
	return name
}

// describeBitmap reads a BITMAPINFOHEADER, of which AVI and, for some codecs, Matroska have one.
func (m *Media) describeBitmap(head []byte) {
	if len(head) < 20 {
		return
	}
	m.Width = int(int32(binary.LittleEndian.Uint32(head[4:])))
	m.Height = max(int(int32(binary.LittleEndian.Uint32(head[8:]))), -int(int32(binary.LittleEndian.Uint32(head[8:]))))
	m.Codec = codecs[strings.ToUpper(string(head[16:20]))]
	m.configure(nil)
	if depth := binary.LittleEndian.Uint16(head[14:]); m.Codec == "rawvideo" && slices.Contains([]uint16{24, 32}, depth) {
		m.PixelFormat = map[uint16]string{24: "bgr24", 32: "bgra"}[depth]
	}
}

// maxAVIHeader bounds an AVI's header list, read into memory: writers reserve a few kB for a larger index in it.
const maxAVIHeader = 1 << 20

// checkAVI checks the length of the RIFF chunk and that the movie list has a
// frame. A writer that was cut off leaves a length of zero or beyond the file.
func checkAVI(f io.ReadSeeker, size int64) (m Media) {
	const truncated = "is a truncated AVI"
	var head [12]byte
	fill(f, head[:], "is no AVI")
	need(string(head[:4]) == "RIFF" && string(head[8:]) == "AVI ", "is no AVI")
	length := int64(binary.LittleEndian.Uint32(head[4:])) + 8
	need(12 <= length && length <= size, "is a truncated AVI: it says it has %d bytes and has %d", length, size)
	for at := int64(12); at+12 <= size; {
		fillAt(f, at, head[:], truncated)
		length := int64(binary.LittleEndian.Uint32(head[4:]))
		need(at+8+length <= size, truncated)
		switch kind := string(head[8:]); {
		case string(head[:4]) != "LIST":
		case kind == "hdrl" && 4 <= length && length <= maxAVIHeader:
			header := make([]byte, length-4)
			fill(f, header, truncated)
			m.describeAVI(header)
		case kind == "movi":
			need(length > 4, "is an AVI without frames")
			return m
		}
		at += 8 + length + length%2
	}
	panic(stopped{broken("is an AVI without frames")})
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
