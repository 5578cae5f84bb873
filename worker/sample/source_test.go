package sample

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"io"
	"slices"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// failing is a file on a disk whose nth reading fails.
type failing struct {
	*bytes.Reader
	left int
}

func (f *failing) Read(p []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, syscall.EIO
	}
	return f.Reader.Read(p)
}

// ReadByte is there so that nobody reads past Read.
func (f *failing) ReadByte() (byte, error) {
	var b [1]byte
	_, err := f.Read(b[:])
	return b[0], err
}

// A disk that cannot be read is no fault of the file, whatever is read when.
func TestDiskIsNotTheFile(t *testing.T) {
	for name, data := range map[string][]byte{"a.png": picture(t), "a.mp4": video(t, 1, 2, 3), "a.avi": avi(2),
		"a.webm": matroska(1, 3), "a.txt": []byte("text"), "metadata.json": []byte(`{"task_id": "d_00000000"}`)} {
		for n := 0; ; n++ {
			f := &failing{bytes.NewReader(data), n}
			wrong, err := Check("d_00000000", name, f, int64(len(data)))
			if f.left >= 0 {
				if wrong != "" || err != nil {
					t.Errorf("%s: %q, %v", name, wrong, err)
				}
				break
			}
			if wrong != "" || !errors.Is(err, syscall.EIO) {
				t.Errorf("%s, when reading %d fails: %q, %v", name, n, wrong, err)
			}
		}
	}
	data := picture(t)
	for n := 0; ; n++ {
		f := &failing{bytes.NewReader(data), n}
		wrong, err := PNGPixels(f)
		if f.left >= 0 {
			break
		}
		if wrong != "" || !errors.Is(err, syscall.EIO) {
			t.Errorf("pixels, when reading %d fails: %q, %v", n, wrong, err)
		}
	}
}

// rawPNG writes a PNG of any kind from what its rows hold.
func rawPNG(width, height, depth, kind, interlace int, rows []byte, split int) []byte {
	var out bytes.Buffer
	out.WriteString("\x89PNG\r\n\x1a\n")
	chunk := func(name string, data []byte) {
		_ = binary.Write(&out, binary.BigEndian, uint32(len(data)))
		body := append([]byte(name), data...)
		out.Write(body)
		_ = binary.Write(&out, binary.BigEndian, crc32.ChecksumIEEE(body))
	}
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(width)), uint32(height))
	chunk("IHDR", append(head, byte(depth), byte(kind), 0, 0, byte(interlace)))
	if kind == 3 {
		chunk("PLTE", bytes.Repeat([]byte{10, 200, 30}, 1<<depth))
	}
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	_, _ = z.Write(rows)
	_ = z.Close()
	for part := range slices.Chunk(packed.Bytes(), split) {
		chunk("IDAT", part)
	}
	chunk("IEND", nil)
	return out.Bytes()
}

// Of every kind of PNG, with any number of bytes as pixels and any filters, the check
// says what the standard library's decoder says, which keeps the whole picture.
func TestPNGPixels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]int{0, 2, 3, 4, 6}).Draw(t, "kind")
		depths := map[int][]int{0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}[kind]
		depth := rapid.SampledFrom(depths).Draw(t, "depth")
		width, height := rapid.IntRange(1, 20).Draw(t, "width"), rapid.IntRange(1, 20).Draw(t, "height")
		interlace := rapid.IntRange(0, 1).Draw(t, "interlace")
		rows := pngRows(pngHead{width: width, height: height, bits: depth * pngChannels[kind], interlaced: interlace == 1},
			rapid.IntRange(0, 4).Draw(t, "filter"))
		switch rapid.IntRange(0, 3).Draw(t, "damage") {
		case 1:
			rows = rows[:rapid.IntRange(0, len(rows)).Draw(t, "cut")]
		case 2:
			rows = append(rows, 0)
		case 3:
			rows[rapid.IntRange(0, len(rows)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		}
		data := rawPNG(width, height, depth, kind, interlace, rows, rapid.IntRange(1, 100).Draw(t, "split"))
		if rapid.Bool().Draw(t, "flip") {
			data[rapid.IntRange(8, len(data)-1).Draw(t, "byte at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		}
		if wrong, err := Check("d_00000000", "a.png", bytes.NewReader(data), int64(len(data))); wrong != "" || err != nil {
			return // the checksums of its chunks say it
		}
		wrong, err := PNGPixels(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if _, said := png.Decode(bytes.NewReader(data)); (said != nil) != (wrong != "") {
			t.Fatalf("it says %q, the decoder %v", wrong, said)
		}
	})
}

// pngRows are rows of zeros, each with a filter.
func pngRows(h pngHead, filter int) (rows []byte) {
	for pass := range h.passes() {
		for range pass.rows {
			rows = append(append(rows, byte(filter)), make([]byte, pass.bytes)...)
		}
	}
	return rows
}

// A picture is refused by its size before its pixels are read.
func TestPNGPixelsOfHugePicture(t *testing.T) {
	wrong, err := PNGPixels(bytes.NewReader(rawPNG(1<<20, 1<<20, 8, 6, 0, nil, 10)))
	if err != nil || wrong != "has 1048576 by 1048576 pixels, more than are decoded" {
		t.Errorf("%q %v", wrong, err)
	}
}

func BenchmarkPNGPixels(b *testing.B) {
	m := image.NewNRGBA(image.Rect(0, 0, 1024, 1024))
	for i := range m.Pix {
		m.Pix[i] = byte(i * i >> 8)
	}
	m.Set(0, 0, color.White)
	var data bytes.Buffer
	_ = png.Encode(&data, m)
	for name, f := range map[string]func(io.Reader) error{
		"rows": func(r io.Reader) error {
			wrong, err := PNGPixels(r)
			return errors.Join(err, map[bool]error{true: fmt.Errorf("%s", wrong)}[wrong != ""])
		},
		"decoder": func(r io.Reader) error { _, err := png.Decode(r); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(bytes.NewReader(data.Bytes())); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
