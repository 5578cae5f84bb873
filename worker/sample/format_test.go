package sample

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"testing"
)

// Cut anywhere, no picture and no video passes for whole; a flipped byte in a
// picture is found too.
func TestTruncation(t *testing.T) {
	for name, data := range map[string][]byte{"a.png": picture(t), "a.mp4": video(t, 50, 7, 7), "a.avi": avi(20),
		"a.webm": matroska(1, 3)} {
		if _, err := checkFile(name, bytes.NewReader(data), int64(len(data)), nil); err != nil {
			t.Errorf("%s, whole: %v", name, err)
		}
		for n := range data {
			if _, err := checkFile(name, bytes.NewReader(data[:n]), int64(n), nil); err == nil {
				t.Errorf("%s passes with %d of %d bytes", name, n, len(data))
			}
		}
	}
	data := picture(t)
	for n := range data {
		data[n] ^= 1
		if _, err := checkFile("a.png", bytes.NewReader(data), int64(len(data)), nil); err == nil {
			t.Errorf("the PNG passes with byte %d flipped", n)
		}
		data[n] ^= 1
	}
}

// The index of a video that a writer never finished, or of no frames, is refused.
func TestVideo(t *testing.T) {
	good := video(t, 10, 20)
	moov := bytes.Index(good, []byte("moov")) - 4
	mdat := bytes.LastIndex(good, []byte("mdat")) - 4
	stsz := bytes.Index(good, []byte("stsz"))
	huge := slices.Clone(good)
	copy(huge[stsz+12:], "\x7f\xff\xff\xff") // the number of frames
	endless := slices.Clone(good)            // four thousand million frames of no byte
	copy(endless[stsz+12:], "\xff\xff\xff\xff")
	copy(endless[bytes.Index(good, []byte("stsc"))+16:], "\xff\xff\xff\xff")
	for name, data := range map[string][]byte{
		"endless":           endless,
		"no index":          slices.Concat(good[:moov], good[mdat:]),
		"no frames":         video(t),
		"a table too large": huge,
		"bytes behind it":   append(slices.Clone(good), "rest"...),
	} {
		var bad *formatError
		if _, err := checkFile("v.mp4", bytes.NewReader(data), int64(len(data)), nil); !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
	behind := slices.Concat(good[:moov], good[mdat:], good[moov:mdat]) // index at the end
	at := bytes.LastIndex(behind, []byte("stco")) + 12
	offset := uint32(moov + 8)
	copy(behind[at:], []byte{byte(offset >> 24), byte(offset >> 16), byte(offset >> 8), byte(offset)})
	if _, err := checkFile("v.mp4", bytes.NewReader(behind), int64(len(behind)), nil); err != nil {
		t.Errorf("index at the end: %v", err)
	}
}

// Whatever a generator writes, the readers end with a verdict.
func FuzzCheckFile(f *testing.F) {
	f.Add(picture(f), 0)
	f.Add(video(f, 10, 20), 1)
	f.Add(avi(20), 2)
	f.Add([]byte("text"), 3)
	f.Add(matroska(1, 3), 4)
	f.Fuzz(func(t *testing.T, data []byte, kind int) {
		name := "a" + []string{".png", ".mp4", ".avi", ".txt", ".webm"}[uint(kind)%5]
		_, err := checkFile(name, bytes.NewReader(data), int64(len(data)), nil)
		var bad *formatError
		if err != nil && !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	})
}

// What is wrong with a file is told from what is wrong with the disk, also where both happened.
func TestReason(t *testing.T) {
	bad := broken("is no PNG")
	if wrong, err := reason(bad); wrong != "is no PNG" || err != nil {
		t.Errorf("%q, %v", wrong, err)
	}
	if wrong, err := reason(errors.Join(bad, fs.ErrPermission)); wrong != "" || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("with an error of the disk: %q, %v", wrong, err)
	}
}
