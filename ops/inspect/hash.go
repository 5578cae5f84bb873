package inspect

import (
	"image"
	"image/color"
	"math/bits"

	"golang.org/x/image/draw"
)

// Hash is a perceptual hash of a picture: pictures that look alike have hashes that differ in few bits. It is dHash of
// 16 by 16 fields: a bit is whether the picture gets lighter to the right there.
type Hash [4]uint64

const (
	fields  = 16
	lighter = 2 // of 255: what a field must differ by from the next one, else noise decides
)

// HashOf returns the hash of a picture.
func HashOf(p image.Image) (h Hash) {
	grey := shrink(p, fields+1, fields)
	for y := range fields {
		for x := range fields {
			if grey[y*(fields+1)+x+1] > grey[y*(fields+1)+x]+lighter {
				n := y*fields + x
				h[n/64] |= 1 << (n % 64)
			}
		}
	}
	return h
}

// Distance is the number of bits in which two hashes differ.
func (h Hash) Distance(other Hash) (n int) {
	for i := range h {
		n += bits.OnesCount64(h[i] ^ other[i])
	}
	return n
}

// thumbSide is how many pixels wide and high the small pictures are that are compared where hashes are near.
const thumbSide = 32

// thumb returns a small picture, three bytes a pixel.
func thumb(p image.Image) []byte {
	small := image.NewRGBA(image.Rect(0, 0, thumbSide, thumbSide))
	draw.BiLinear.Scale(small, small.Bounds(), p, p.Bounds(), draw.Src, nil)
	pixels := make([]byte, 0, 3*thumbSide*thumbSide)
	for i := 0; i < len(small.Pix); i += 4 {
		pixels = append(pixels, small.Pix[i:i+3]...)
	}
	return pixels
}

// alike reports whether no pixel of two small pictures differs by Unlike.
func alike(a, b []byte) bool {
	for i := 0; i+2 < len(a) && i+2 < len(b); i += 3 {
		sum := 0
		for c := range 3 {
			x := int(a[i+c]) - int(b[i+c])
			sum += max(x, -x)
		}
		if float64(sum) >= Unlike*3*255 {
			return false
		}
	}
	return len(a) == len(b)
}

// shrink returns the mean grey, from 0 to 255, of the fields of a picture.
func shrink(p image.Image, width, height int) []float64 {
	b := p.Bounds()
	sums, counts := make([]float64, width*height), make([]float64, width*height)
	at := greyOf(p)
	for y := b.Min.Y; y < b.Max.Y; y++ {
		row := (y - b.Min.Y) * height / b.Dy() * width
		for x := b.Min.X; x < b.Max.X; x++ {
			n := row + (x-b.Min.X)*width/b.Dx()
			sums[n] += at(x, y)
			counts[n]++
		}
	}
	for i := range sums {
		sums[i] /= max(counts[i], 1) // a picture may have fewer pixels than fields
	}
	return sums
}

// greyOf returns a function that returns the grey of a pixel, quickly for what PNG files are decoded to.
func greyOf(p image.Image) func(x, y int) float64 {
	weigh := func(r, g, b uint8) float64 { return 0.299*float64(r) + 0.587*float64(g) + 0.114*float64(b) }
	switch p := p.(type) {
	case *image.RGBA:
		return func(x, y int) float64 { c := p.Pix[p.PixOffset(x, y):]; return weigh(c[0], c[1], c[2]) }
	case *image.NRGBA:
		return func(x, y int) float64 { c := p.Pix[p.PixOffset(x, y):]; return weigh(c[0], c[1], c[2]) }
	case *image.Gray:
		return func(x, y int) float64 { return float64(p.Pix[p.PixOffset(x, y)]) }
	}
	return func(x, y int) float64 {
		c := color.NRGBAModel.Convert(p.At(x, y)).(color.NRGBA)
		return weigh(c.R, c.G, c.B)
	}
}
