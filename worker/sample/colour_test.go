package sample

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"syscall"
	"testing"
	"time"
)

// plainPNG writes a PNG whose rows, before their filter, are made of one byte but for the last of them.
func plainPNG(kind, depth, interlace int, filter, fill byte, last func([]byte)) []byte {
	h := pngHead{width: 19, height: 11, bits: depth * pngChannels[kind], interlaced: interlace == 1}
	var rows [][]byte
	for pass := range h.passes() {
		for range pass.rows {
			row := bytes.Repeat([]byte{fill}, pass.bytes)
			row[len(row)-1] &= 0xff << ((8 - pass.columns*h.bits%8) % 8)
			rows = append(rows, row)
		}
	}
	last(rows[len(rows)-1])
	var out []byte
	for pass := range h.passes() {
		above := make([]byte, pass.bytes)
		for _, row := range rows[:pass.rows] {
			out = append(append(out, filter), filterRow(filter, row, above, max(1, h.bits/8))...)
			above = row
		}
		rows = rows[pass.rows:]
	}
	return rawPNG(h.width, h.height, depth, kind, interlace, out, 1000)
}

// filterRow filters a row as the specification has it.
func filterRow(filter byte, row, above []byte, each int) []byte {
	out := bytes.Clone(row)
	for i := range row {
		var a, b, c int // left, above, and above that
		if b = int(above[i]); i >= each {
			a, c = int(row[i-each]), int(above[i-each])
		}
		paeth := a
		for _, near := range []int{b, c} {
			if d := a + b - c; max(d-near, near-d) < max(d-paeth, paeth-d) {
				paeth = near
			}
		}
		out[i] -= byte(map[byte]int{1: a, 2: b, 3: (a + b) / 2, 4: paeth}[filter])
	}
	return out
}

// A picture of one colour is found in every kind of PNG, with the colour that a decoder shows; one with a single other
// pixel is not.
func TestOneColour(t *testing.T) {
	fills := map[int]byte{1: 0xff, 2: 0x55, 4: 0x55, 8: 0x55, 16: 0x55}
	for kind, depths := range pngDepths {
		for _, depth := range depths {
			for _, interlace := range []int{0, 1} {
				for filter := range byte(5) {
					t.Run(fmt.Sprint(kind, depth, interlace, filter), func(t *testing.T) {
						file := plainPNG(kind, depth, interlace, filter, fills[depth], func([]byte) {})
						decoded, err := png.Decode(bytes.NewReader(file))
						if err != nil {
							t.Fatal(err)
						}
						c := color.NRGBAModel.Convert(decoded.At(18, 10)).(color.NRGBA)
						want := fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B)
						if c.A < 255 {
							want += fmt.Sprintf("%02x", c.A)
						}
						m, err := Describe("a.png", file)
						if err != nil || m.Colour != want || m.Width != 19 {
							t.Errorf("the colour is %q of %d pixels a row, %v; want %s", m.Colour, m.Width, err, want)
						}
						spot := plainPNG(kind, depth, interlace, filter, fills[depth], func(row []byte) {
							row[len(row)-1] ^= 0x80 >> ((19*depth*pngChannels[kind] - 1) % 8)
						})
						if m, err := Describe("a.png", spot); err != nil || m.Colour != "" {
							t.Errorf("with another pixel the colour is %q, %v", m.Colour, err)
						}
					})
				}
			}
		}
	}
}

// A picture that cannot be decoded has no colour, and that is no error of the check, which decodes nothing.
func TestOneColourUndecodable(t *testing.T) {
	file := plainPNG(2, 8, 0, 7, 0, func([]byte) {})
	if m, err := Describe("a.png", file); err != nil || m.Colour != "" {
		t.Errorf("the colour is %q, %v", m.Colour, err)
	}
}

// BenchmarkOneColour measures what the search for a second colour takes of pictures as generators write them: a frame
// with a margin, the same with other pixels from the last row on only, which is the dearest, and one of one colour.
func BenchmarkOneColour(b *testing.B) {
	for name, pixel := range map[string]func(x, y int) bool{
		"margin":     func(x, y int) bool { return x > 40 && y > 40 && x*y%7 > 2 },
		"last row":   func(_, y int) bool { return y == 511 },
		"one colour": func(int, int) bool { return false },
	} {
		m := image.NewNRGBA(image.Rect(0, 0, 512, 512))
		for i := range 512 * 512 {
			c := color.NRGBA{240, 240, 235, 255}
			if pixel(i%512, i/512) {
				c = color.NRGBA{uint8(i), 30, 90, 255}
			}
			m.Set(i%512, i/512, c)
		}
		var file bytes.Buffer
		if err := png.Encode(&file, m); err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := cpuSeconds(b)
			for b.Loop() {
				if colour := oneColour(bytes.NewReader(file.Bytes())); (colour == "") != (name != "one colour") {
					b.Fatal(colour)
				}
			}
			b.ReportMetric(1e3*(cpuSeconds(b)-before)/float64(b.N), "cpu-ms/op")
		})
	}
}

func cpuSeconds(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
