package sample

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// maxRow is how many bytes a row of a picture may have that is searched for a second colour.
const maxRow = 1 << 20

// oneColour returns the colour of a complete PNG that has only one, as #rrggbb, or #rrggbbaa if it is not opaque. Of a
// picture with more colours, and of one that cannot be decoded, it returns "". It reads up to the first row that
// differs, of most pictures a few, and decodes none: it compares with what a row of one colour is packed as.
func oneColour(from io.Reader) string {
	h, data, rows, err := openPixels(bufio.NewReader(from))
	if err != nil {
		return ""
	}
	defer unpackers.Put(rows)
	var pixel []byte // the first one; of less than 8 bits it is the first of its byte
	for pass := range h.passes() {
		if pass.bytes > maxRow {
			return ""
		}
		var plain [2][5][]byte // the first row and those below it, by their filters
		row := make([]byte, 1+pass.bytes)
		for n := range pass.rows {
			if _, err := io.ReadFull(rows, row); err != nil || row[0] > 4 {
				return ""
			}
			if pixel == nil { // no filter changes the first
				pixel = bytes.Clone(row[1:][:max(1, h.bits/8)])
			}
			want := &plain[min(n, 1)][row[0]]
			if *want == nil {
				*want = h.plainRow(row[0], pixel, pass, n > 0)
			}
			if !bytes.Equal(row[1:], *want) {
				return ""
			}
		}
	}
	return h.colour(pixel, data.palette)
}

// plainRow returns a row of one colour as a filter makes it, below another one or not: PNG specification, 9.2.
func (h pngHead) plainRow(filter byte, pixel []byte, pass pngPass, below bool) []byte {
	row := bytes.Repeat(pixel, pass.bytes/len(pixel))
	if h.bits < 8 {
		for i := range row {
			row[i] = pixel[0] >> (8 - h.bits) * byte(0xff/(1<<h.bits-1))
		}
		row[len(row)-1] &= 0xff << ((8 - pass.columns*h.bits%8) % 8)
	}
	above := make([]byte, len(row))
	if below {
		copy(above, row)
	}
	filtered := bytes.Clone(row)
	for i := range row {
		var left, corner byte
		if i >= len(pixel) {
			left, corner = row[i-len(pixel)], above[i-len(pixel)]
		}
		switch filter {
		case 1:
			filtered[i] -= left
		case 2:
			filtered[i] -= above[i]
		case 3:
			filtered[i] -= byte((int(left) + int(above[i])) / 2)
		case 4:
			filtered[i] -= nearest(left, above[i], corner)
		}
	}
	return filtered
}

// nearest is the Paeth predictor.
func nearest(left, up, corner byte) byte {
	a, b, c := int(left), int(up), int(corner)
	toLeft, toUp, toCorner := b-c, a-c, a+b-2*c
	toLeft, toUp, toCorner = max(toLeft, -toLeft), max(toUp, -toUp), max(toCorner, -toCorner)
	switch {
	case toLeft <= toUp && toLeft <= toCorner:
		return left
	case toUp <= toCorner:
		return up
	}
	return corner
}

// colour writes a pixel as a colour.
func (h pngHead) colour(pixel, palette []byte) string {
	at := func(channel int) byte {
		switch {
		case h.depth == 16:
			return pixel[2*channel]
		case h.depth < 8:
			return pixel[0] >> (8 - h.depth) * byte(0xff/(1<<h.depth-1))
		}
		return pixel[channel]
	}
	alpha := byte(255)
	var rgb [3]byte
	switch h.kind {
	case 0, 4:
		rgb = [3]byte{at(0), at(0), at(0)}
	case 3:
		if from := 3 * int(pixel[0]>>(8-h.depth)); from+3 <= len(palette) {
			rgb = [3]byte(palette[from:])
		}
	default:
		rgb = [3]byte{at(0), at(1), at(2)}
	}
	switch h.kind {
	case 4:
		alpha = at(1)
	case 6:
		alpha = at(3)
	}
	if alpha < 255 {
		return fmt.Sprintf("#%x%02x", rgb, alpha)
	}
	return fmt.Sprintf("#%x", rgb)
}
