package inspect_test

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math/rand/v2"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
)

// scene draws discs, which another seed draws at other places.
func scene(seed uint64) *image.RGBA {
	const side, discs, radius = 256, 8, 24
	rng := rand.New(rand.NewPCG(seed, 1))
	p := image.NewRGBA(image.Rect(0, 0, side, side))
	for i := range p.Pix {
		p.Pix[i] = 255
	}
	for range discs {
		x, y, c := rng.IntN(side), rng.IntN(side), color.RGBA{uint8(rng.IntN(200)), uint8(rng.IntN(200)),
			uint8(rng.IntN(200)), 255}
		for dy := -radius; dy <= radius; dy++ {
			for dx := -radius; dx <= radius; dx++ {
				if dx*dx+dy*dy <= radius*radius {
					p.SetRGBA(x+dx, y+dy, c)
				}
			}
		}
	}
	return p
}

// recompressed is a picture after JPEG.
func recompressed(t *testing.T, p image.Image) image.Image {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, p, &jpeg.Options{Quality: 60}); err != nil {
		t.Fatal(err)
	}
	again, err := jpeg.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// Copies are near: recompressed, darker, of another size. Another picture, another color, or one thing moved are not.
func TestNear(t *testing.T) {
	first, final := scene(1), scene(2)
	darker, recoloured, moved := scene(1), scene(1), scene(1)
	for i := range darker.Pix {
		if i%4 != 3 {
			darker.Pix[i] -= min(darker.Pix[i], 5)
		}
	}
	for i := 0; i < len(recoloured.Pix); i += 4 {
		recoloured.Pix[i], recoloured.Pix[i+2] = recoloured.Pix[i+2], recoloured.Pix[i]
	}
	for y := range 16 {
		for x := range 16 {
			moved.SetRGBA(120+x, 120+y, color.RGBA{255, 0, 0, 255})
		}
	}
	looks := []inspect.Look{
		inspect.LookOf("original", 0, first, final),
		inspect.LookOf("recompressed", 1, recompressed(t, first), recompressed(t, final)),
		inspect.LookOf("darker", 2, darker, final),
		inspect.LookOf("recoloured", 3, recoloured, final),
		inspect.LookOf("moved", 4, moved, final),
		inspect.LookOf("other end", 5, first, scene(3)),
		inspect.LookOf("other", 6, scene(4), scene(5)),
		inspect.LookOf("its copy", 7, scene(4), scene(5)),
		inspect.LookOf("no final frame", 8, first, first),
	}
	got := ""
	for _, g := range inspect.Groups(looks, inspect.Near) {
		for _, s := range g.Samples {
			got += s.ID + ", "
		}
		got += fmt.Sprintf("%d; ", min(g.Furthest, 1))
	}
	if want := "original, recompressed, darker, 1; other, its copy, 0; "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// BenchmarkNear compares 10,000 samples with each other.
func BenchmarkNear(b *testing.B) {
	const samples = 10_000
	var base []inspect.Look
	for i := range uint64(100) {
		base = append(base, inspect.LookOf(fmt.Sprint(i), int(i), scene(i), scene(i+1000)))
	}
	looks := make([]inspect.Look, samples)
	for i := range looks {
		looks[i] = base[i%len(base)]
	}
	for b.Loop() {
		if groups := inspect.Groups(looks, inspect.Near); len(groups) != len(base) {
			b.Fatalf("%d groups", len(groups))
		}
	}
}
