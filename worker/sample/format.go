package sample

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"

	"github.com/Eyevinn/mp4ff/mp4"
)

// formatError says that a file is not whole.
type formatError struct{ reason string }

func (e *formatError) Error() string { return e.reason }

func broken(format string, args ...any) error { return &formatError{fmt.Sprintf(format, args...)} }

// Whole checks a file of the sample id as Collect does, and returns what is wrong
// with it, or "".
func Whole(id, name string, f io.ReadSeeker, size int64) (wrong string, err error) {
	if err = checkFile(name, f, size, nil); err == nil && name == "metadata.json" {
		s := &Source{Reader: f}
		if err = checkMetadata(s, id); s.Failed != nil {
			err = s.Failed
		}
	}
	if bad, ok := err.(*formatError); ok { //nolint:errorlint // checkFile returns it bare
		return bad.reason, nil
	}
	return "", err
}

// checkFile checks that a file is whole, by its extension. The checks read the
// structure and the checksums of a file and decode no pixel: decoding would cost
// more CPU than the worker is allowed beside the generator. The buffer may be nil.
func checkFile(name string, f io.ReadSeeker, size int64, buffer []byte) error {
	if size == 0 {
		return broken("is empty")
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	s := &seekable{Source{Reader: f}, f}
	err := checkFormat(name, s, size, buffer)
	if s.Failed != nil { // it was not the file that ended
		return s.Failed
	}
	return err
}

func checkFormat(name string, f io.ReadSeeker, size int64, buffer []byte) error {
	switch path.Ext(name) {
	case ".png":
		return checkPNG(f, size, buffer)
	case ".mp4", ".mov":
		return checkMP4(f, size)
	case ".avi":
		return checkAVI(f, size)
	case ".webm", ".mkv":
		return checkMatroska(f, size)
	case ".txt":
		return checkText(f)
	}
	return nil
}

func checkText(f io.Reader) error {
	head := make([]byte, 4096)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if len(bytes.TrimSpace(head[:n])) == 0 && n < len(head) {
		return broken("holds nothing but blanks")
	}
	return nil
}

// checkPNG walks the chunks and their CRCs up to IEND, which must end the file.
func checkPNG(f io.Reader, size int64, buffer []byte) error {
	var head [8]byte
	if _, err := io.ReadFull(f, head[:]); err != nil || string(head[:]) != "\x89PNG\r\n\x1a\n" {
		return broken("is no PNG")
	}
	left := size - 8
	seenData := false
	for first := true; ; first = false {
		if _, err := io.ReadFull(f, head[:]); err != nil {
			return broken("is a truncated PNG")
		}
		length, kind := int64(binary.BigEndian.Uint32(head[:4])), string(head[4:])
		if left -= 12 + length; left < 0 {
			return broken("is a truncated PNG")
		}
		crc := crc32.NewIEEE()
		_, _ = crc.Write(head[4:])
		if n, err := io.CopyBuffer(crc, io.LimitReader(f, length), buffer); err != nil || n < length {
			return broken("is a truncated PNG")
		}
		if _, err := io.ReadFull(f, head[:4]); err != nil || binary.BigEndian.Uint32(head[:4]) != crc.Sum32() {
			return broken("is a damaged PNG: the checksum of its %q chunk is wrong", kind)
		}
		switch {
		case first != (kind == "IHDR"):
			return broken("is no PNG: IHDR is not its first chunk")
		case kind == "IDAT":
			seenData = true
		case kind == "IEND" && !seenData:
			return broken("is a PNG without a picture")
		case kind == "IEND" && left != 0:
			return broken("is a PNG followed by %d other bytes", left)
		case kind == "IEND":
			return nil
		}
	}
}

// maxMoov bounds the index of a video, which is read into memory: 1 MiB holds
// the tables of an hour.
const maxMoov = 8 << 20

// checkMP4 walks the boxes, which must cover the file exactly, and checks that
// there is a video track whose frames all lie inside the file.
func checkMP4(f io.ReadSeeker, size int64) (err error) {
	defer func() {
		if p := recover(); p != nil { // mp4ff on hostile tables
			err = broken("is a damaged MP4: %v", p)
		}
	}()
	var head [16]byte
	var moov []byte
	fragments, frames := 0, 0
	for at := int64(0); at < size; {
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.ReadFull(f, head[:8]); err != nil {
			return broken("is a truncated MP4")
		}
		length, kind, header := int64(binary.BigEndian.Uint32(head[:4])), string(head[4:8]), int64(8)
		switch length {
		case 0: // to the end of the file
			length = size - at
		case 1:
			if _, err := io.ReadFull(f, head[8:]); err != nil {
				return broken("is a truncated MP4")
			}
			length, header = int64(binary.BigEndian.Uint64(head[8:])), 16
		}
		if length < header || length > size-at {
			return broken("is a truncated MP4: its %q box ends %d bytes behind the file", kind, at+length-size)
		}
		if at == 0 && kind != "ftyp" {
			return broken("is no MP4: it begins with %q", kind)
		}
		if kind == "moov" || kind == "moof" {
			if length > maxMoov {
				return broken("is no usable MP4: its index has %d bytes", length)
			}
			index := make([]byte, length)
			if _, err := f.Seek(at, io.SeekStart); err != nil {
				return err
			}
			if _, err := io.ReadFull(f, index); err != nil {
				return broken("is a truncated MP4")
			}
			if kind == "moov" {
				moov = index
			} else {
				fragments++
				frames += framesOf(index)
			}
		}
		at += length
	}
	if moov == nil {
		return broken("is an MP4 without an index (moov): its writer was cut off")
	}
	box, err := mp4.DecodeBox(0, bytes.NewReader(moov))
	if err != nil {
		return broken("is a damaged MP4: %v", err)
	}
	index, ok := box.(*mp4.MoovBox)
	if !ok {
		return broken("is a damaged MP4")
	}
	for _, track := range index.Traks {
		if track.Mdia == nil || track.Mdia.Hdlr == nil || track.Mdia.Hdlr.HandlerType != "vide" {
			continue
		}
		if fragments > 0 && frames == 0 {
			return broken("is an MP4 without frames")
		}
		if fragments > 0 {
			return nil
		}
		return checkTrack(track, size)
	}
	return broken("is an MP4 without a video track")
}

// framesOf counts the frames of a fragment. What cannot be understood has none.
func framesOf(moof []byte) int {
	box, err := mp4.DecodeBox(0, bytes.NewReader(moof))
	fragment, ok := box.(*mp4.MoofBox)
	if err != nil || !ok {
		return 0
	}
	n := 0
	for _, track := range fragment.Trafs {
		for _, run := range track.Truns {
			n += int(run.SampleCount())
		}
	}
	return n
}

func checkTrack(track *mp4.TrakBox, size int64) error {
	if track.Mdia.Minf == nil || track.Mdia.Minf.Stbl == nil {
		return broken("is an MP4 without a frame table")
	}
	table := track.Mdia.Minf.Stbl
	if table.Stsz == nil || table.Stsc == nil || table.Stsz.SampleNumber == 0 {
		return broken("is an MP4 without frames")
	}
	if int64(table.Stsz.SampleNumber) > size {
		return broken("is a damaged MP4: %d frames in %d bytes", table.Stsz.SampleNumber, size)
	}
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
			if frame > table.Stsz.SampleNumber {
				return broken("is a damaged MP4: its tables disagree")
			}
			end += uint64(table.Stsz.GetSampleSize(int(frame)))
			frame++
		}
		if end > uint64(size) {
			return broken("is a truncated MP4: a frame ends %d bytes behind the file", end-uint64(size))
		}
	}
	if frame != table.Stsz.SampleNumber+1 {
		return broken("is a damaged MP4: %d of %d frames have a place", frame-1, table.Stsz.SampleNumber)
	}
	return nil
}

// checkAVI checks the length of the RIFF chunk and that the movie list has a
// frame. A writer that was cut off leaves a length of zero or beyond the file.
func checkAVI(f io.ReadSeeker, size int64) error {
	var head [12]byte
	if _, err := io.ReadFull(f, head[:]); err != nil || string(head[:4]) != "RIFF" || string(head[8:]) != "AVI " {
		return broken("is no AVI")
	}
	if length := int64(binary.LittleEndian.Uint32(head[4:])) + 8; length > size || length < 12 {
		return broken("is a truncated AVI: it says it has %d bytes and has %d", length, size)
	}
	for at := int64(12); at+12 <= size; {
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.ReadFull(f, head[:]); err != nil {
			return broken("is a truncated AVI")
		}
		length := int64(binary.LittleEndian.Uint32(head[4:]))
		if at+8+length > size {
			return broken("is a truncated AVI")
		}
		if string(head[:4]) == "LIST" && string(head[8:]) == "movi" {
			if length <= 4 {
				return broken("is an AVI without frames")
			}
			return nil
		}
		at += 8 + length + length%2
	}
	return broken("is an AVI without frames")
}
