package inspect

import (
	"context"
	"image"
	"image/color"
	"math/bits"
	"os"
	"slices"
	"strings"

	"golang.org/x/image/draw"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/video"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// Near is the distance up to which samples are near duplicates if nobody says otherwise: bits of the hashes of their
// first and final frames together, of 512. docs/INSPECT.md has what it misses and what it finds wrongly.
const Near = 48

// Look is how a sample looks, in 6 KB: the hashes of its first and final frames, which find the pairs that may be
// alike, and small pictures, which tell.
type Look struct {
	ID    string
	Index int
	hash  [2]Hash
	thumb [2][]byte
}

// see takes the first (0) or final (1) frame.
func (l *Look) see(at int, p image.Image) { l.hash[at], l.thumb[at] = HashOf(p), thumb(p) }

// Group are samples of which each is near another one.
type Group struct {
	Samples  []Found `json:"samples"`  // in order of their indices; Number is the distance to the nearest one
	Furthest int     `json:"furthest"` // the largest of these distances
}

// Groups returns the groups of looks that are at most so far from each other, the largest first. Each look is compared
// with all others: 10,000 take seconds.
func Groups(looks []Look, most int) (groups []Group) {
	parent, nearest := make([]int, len(looks)), make([]int, len(looks))
	for i := range looks {
		parent[i], nearest[i] = i, most+1
	}
	root := func(i int) int {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	for i := range looks {
		for j := range i {
			n := looks[i].hash[0].Distance(looks[j].hash[0])
			if n > most {
				continue
			}
			if n += looks[i].hash[1].Distance(looks[j].hash[1]); n > most {
				continue
			}
			if n >= nearest[i] && n >= nearest[j] && root(i) == root(j) {
				continue // it would change nothing
			}
			if alike(looks[i].thumb[0], looks[j].thumb[0]) && alike(looks[i].thumb[1], looks[j].thumb[1]) {
				nearest[i], nearest[j] = min(nearest[i], n), min(nearest[j], n)
				parent[root(i)] = root(j)
			}
		}
	}
	at := map[int]int{} // place of a root's group
	for i, l := range looks {
		if nearest[i] > most {
			continue
		}
		r := root(i)
		if _, ok := at[r]; !ok {
			at[r] = len(groups)
			groups = append(groups, Group{})
		}
		g := &groups[at[r]]
		g.Samples = append(g.Samples, Found{ID: l.ID, Index: l.Index, Hint: Hint{Number: float64(nearest[i])}})
		g.Furthest = max(g.Furthest, nearest[i])
	}
	slices.SortStableFunc(groups, func(a, b Group) int { return len(b.Samples) - len(a.Samples) })
	return groups
}

func isFrame(name string) bool { return name == firstFrame || name == finalFrame }

// Looks reads the first and final frames of n samples of a generator, or of all if n is 0. Those that cannot be decoded
// are left out, and so is a final frame that is not there.
func (d *Deep) Looks(ctx context.Context, generator string, n int) (looks []Look, err error) {
	err = d.files(ctx, "pictures of "+generator, generator, n, isFrame, func(_ context.Context, _ string,
		samples []sample.Sample) (func(), error) {
		var list []Look
		for _, s := range samples {
			l := Look{ID: s.ID, Index: s.Index}
			for _, f := range s.Files {
				picture, wrong, err := video.ReadPicture(f.Path)
				if err != nil {
					return nil, err
				}
				if wrong != "" { // ops verify --deep reports it
					continue
				}
				at := 0
				if f.Name == finalFrame {
					at = 1
				}
				l.see(at, picture)
			}
			if l.thumb[0] != nil || l.thumb[1] != nil {
				list = append(list, l)
			}
		}
		return func() { looks = append(looks, list...) }, nil
	})
	slices.SortFunc(looks, func(a, b Look) int { return a.Index - b.Index })
	return looks, err
}

// Pictures hands over the first and final frames of samples of a generator, as files that are removed afterwards.
func (d *Deep) Pictures(ctx context.Context, generator string, indices []int,
	use func(id string, files []sample.File) error) error {
	wanted := map[int]bool{}
	for _, i := range indices {
		wanted[i] = true
	}
	for g, err := range d.pick(ctx, generator, func(s *sample.Sample) bool { return wanted[s.Index] }) {
		if err != nil {
			return err
		}
		dir, err := os.MkdirTemp("", "inspect-")
		if err != nil {
			return err
		}
		samples, err := g.fetch(ctx, d.Store, dir, isFrame)
		for _, s := range samples {
			slices.SortFunc(s.Files, func(a, b sample.File) int { return strings.Compare(b.Name, a.Name) })
			if err == nil {
				err = use(s.ID, s.Files)
			}
		}
		_ = os.RemoveAll(dir)
		if err != nil {
			return err
		}
	}
	return nil
}

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
