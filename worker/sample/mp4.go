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
		need(header <= length && length <= size-at, "is a truncated MP4: its %q box ends %d bytes behind the file", kind,
			at+length-size)
		need(at > 0 || kind == "ftyp", "is no MP4: it begins with %q", kind)
		if kind == "moov" || kind == "moof" {
			need(length <= maxMoov, "is no usable MP4: its index has %d bytes", length)
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
			} else {
				need(err == nil, "is a damaged MP4: %v", err)
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
		need(end <= uint64(size), "is a truncated MP4: a frame ends %d bytes behind the file", end-uint64(size))
	}
	need(frame == all+1, "is a damaged MP4: %d of %d frames have a place", frame-1, all)
	if table.Stts != nil {
		for i, count := range table.Stts.SampleCount {
			duration += uint64(count) * uint64(table.Stts.SampleTimeDelta[i])
		}
	}
	return int(all), duration
}
