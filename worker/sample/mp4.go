package sample

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/Eyevinn/mp4ff/mp4"
)

// maxMoov bounds the index of a video, which is read into memory: 1 MiB holds the tables of an hour.
const maxMoov = 8 << 20

// checkMP4 walks the boxes, which must cover the file exactly, and checks that
// there is a video track whose frames all lie inside the file.
func checkMP4(f io.ReadSeeker, size int64) (m Media, err error) {
	defer func() {
		if p := recover(); p != nil { // mp4ff on hostile tables
			err = broken("is a damaged MP4: %v", p)
		}
	}()
	var head [16]byte
	var moov *mp4.MoovBox
	var track *mp4.TrakBox // the first one of video
	var raw []byte         // that track
	fragments, frames, duration := 0, 0, uint64(0)
	for at := int64(0); at < size; {
		if readAt(f, at, head[:8]) != nil {
			return m, broken("is a truncated MP4")
		}
		length, kind, header := int64(binary.BigEndian.Uint32(head[:4])), string(head[4:8]), int64(8)
		switch length {
		case 0: // to the end of the file
			length = size - at
		case 1:
			if readAt(f, at+8, head[8:]) != nil {
				return m, broken("is a truncated MP4")
			}
			length, header = int64(binary.BigEndian.Uint64(head[8:])), 16
		}
		if length < header || length > size-at {
			return m, broken("is a truncated MP4: its %q box ends %d bytes behind the file", kind, at+length-size)
		}
		if at == 0 && kind != "ftyp" {
			return m, broken("is no MP4: it begins with %q", kind)
		}
		if kind == "moov" || kind == "moof" {
			if length > maxMoov {
				return m, broken("is no usable MP4: its index has %d bytes", length)
			}
			index := make([]byte, length)
			if readAt(f, at, index) != nil {
				return m, broken("is a truncated MP4")
			}
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
				return m, broken("is a damaged MP4: %v", err)
			}
		}
		at += length
	}
	switch {
	case moov == nil:
		return m, broken("is an MP4 without an index (moov): its writer was cut off")
	case track == nil:
		return m, broken("is an MP4 without a video track")
	case fragments > 0 && frames == 0:
		return m, broken("is an MP4 without frames")
	case fragments == 0:
		if frames, duration, err = checkTrack(track, size); err != nil {
			return m, err
		}
	}
	return describeTrack(track, raw, frames, duration), nil
}

func readAt(f io.ReadSeeker, at int64, p []byte) error {
	_, err := f.Seek(at, io.SeekStart)
	if err == nil {
		_, err = io.ReadFull(f, p)
	}
	return err
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
	defer func() { _ = recover() }() // mp4ff on hostile tables: they refuse no video whose frames are there
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
func checkTrack(track *mp4.TrakBox, size int64) (frames int, duration uint64, err error) {
	if track.Mdia.Minf == nil || track.Mdia.Minf.Stbl == nil {
		return 0, 0, broken("is an MP4 without a frame table")
	}
	table := track.Mdia.Minf.Stbl
	if table.Stsz == nil || table.Stsc == nil || table.Stsz.SampleNumber == 0 {
		return 0, 0, broken("is an MP4 without frames")
	}
	if int64(table.Stsz.SampleNumber) > size {
		return 0, 0, broken("is a damaged MP4: %d frames in %d bytes", table.Stsz.SampleNumber, size)
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
				return 0, 0, broken("is a damaged MP4: its tables disagree")
			}
			end += uint64(table.Stsz.GetSampleSize(int(frame)))
			frame++
		}
		if end > uint64(size) {
			return 0, 0, broken("is a truncated MP4: a frame ends %d bytes behind the file", end-uint64(size))
		}
	}
	if frame != table.Stsz.SampleNumber+1 {
		return 0, 0, broken("is a damaged MP4: %d of %d frames have a place", frame-1, table.Stsz.SampleNumber)
	}
	if table.Stts != nil {
		for i, count := range table.Stts.SampleCount {
			duration += uint64(count) * uint64(table.Stts.SampleTimeDelta[i])
		}
	}
	return int(table.Stsz.SampleNumber), duration, nil
}
