package sample

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/Eyevinn/mp4ff/mp4"
)

// element is an element of Matroska: its id as it is written, and what is in it.
func element(id string, parts ...[]byte) []byte {
	data := slices.Concat(parts...)
	return slices.Concat([]byte(id), []byte{0x40 | byte(len(data)>>8), byte(len(data))}, data)
}

// matroska is a whole file with a track of a kind (1 is video) and frames.
func matroska(kind byte, frames int) []byte {
	var blocks [][]byte
	for range frames {
		blocks = append(blocks, element("\xa3", []byte{0x81}, make([]byte, 30)))
	}
	return slices.Concat(element("\x1a\x45\xdf\xa3", element("\x42\x82", []byte("webm"))),
		element("\x18\x53\x80\x67",
			element("\x16\x54\xae\x6b", element("\xae", element("\xd7", []byte{1}), element("\x83", []byte{kind}))),
			element("\x1f\x43\xb6\x75", blocks...)))
}

func TestMatroska(t *testing.T) {
	good := matroska(1, 3)
	// A writer that cannot seek back leaves the length of the segment open.
	live := bytes.Replace(good, good[bytes.Index(good, []byte("\x18\x53\x80\x67")):][:6],
		[]byte("\x18\x53\x80\x67\xff"), 1)
	for _, data := range [][]byte{good, live} {
		for _, name := range []string{"v.webm", "v.mkv"} {
			if _, err := checkFile(name, bytes.NewReader(data), int64(len(data)), nil); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for name, data := range map[string][]byte{
		"no matroska":    []byte("x"),
		"no video":       matroska(2, 3),
		"no frames":      matroska(1, 0),
		"bytes behind":   append(slices.Clone(good), 0, 0),
		"no length":      slices.Concat(good, []byte("\xec\xff")),
		"a wide number":  slices.Concat(good, []byte("\x00\x00")),
		"a long element": slices.Concat(good, []byte("\xec\x42\x00rest")),
	} {
		var bad *formatError
		if _, err := checkFile("v.webm", bytes.NewReader(data), int64(len(data)), nil); !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A video in fragments has its frames in these.
func TestFragments(t *testing.T) {
	start := mp4.CreateEmptyInit()
	start.AddEmptyTrack(25, "video", "und")
	for frames, whole := range []bool{false, true, true} {
		fragment, err := mp4.CreateFragment(1, 1)
		if err != nil {
			t.Fatal(err)
		}
		for range frames {
			fragment.AddFullSample(mp4.FullSample{Sample: mp4.Sample{Dur: 1, Size: 9}, Data: make([]byte, 9)})
		}
		var b bytes.Buffer
		if err := errors.Join(start.Encode(&b), fragment.Encode(&b)); err != nil {
			t.Fatal(err)
		}
		if _, err := checkFile("v.mp4", bytes.NewReader(b.Bytes()), int64(b.Len()), nil); whole != (err == nil) {
			t.Errorf("%d frames: %v", frames, err)
		}
	}
}
