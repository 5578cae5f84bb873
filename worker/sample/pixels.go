package sample

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
)

// MaxPixels is how large a picture may be that is decoded, four times 4096 by 4096: a few bytes can claim many GB.
const MaxPixels = 64 << 20

type pngHead struct {
	width, height int
	kind          int
	depth         int // bits of a number
	bits          int // of a pixel
	interlaced    bool
}

// The kinds of PNG: how many numbers a pixel has, and of how many bits they may be.
var (
	pngChannels = map[int]int{0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
	pngDepths   = map[int][]int{0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
)

// pngPass are rows of one width: all of a picture, or a seventh of an interlaced one.
type pngPass struct {
	columns, rows, bytes int // bytes of each row, without its filter
}

func (h pngHead) passes() iter.Seq[pngPass] {
	return func(yield func(pngPass) bool) {
		grids := [][4]int{{1, 1, 0, 0}} // every nth column and row, from which on
		if h.interlaced {
			grids = [][4]int{{8, 8, 0, 0}, {8, 8, 4, 0}, {4, 8, 0, 4}, {4, 4, 2, 0}, {2, 4, 0, 2}, {2, 2, 1, 0}, {1, 2, 0, 1}}
		}
		for _, g := range grids {
			columns, rows := (h.width-g[2]+g[0]-1)/g[0], (h.height-g[3]+g[1]-1)/g[1]
			if columns > 0 && rows > 0 && !yield(pngPass{columns, rows, (columns*h.bits + 7) / 8}) {
				return
			}
		}
	}
}

// PNGPixels reads every pixel of a PNG whose chunks are complete, as Check finds, and returns what is wrong with them,
// or "". It unpacks row by row and keeps none, so a picture of any size takes 50 kB. The error is of the reading.
func PNGPixels(from io.Reader) (wrong string, err error) {
	s := &Source{Reader: from}
	err = checkPixels(bufio.NewReader(s))
	if s.Failed != nil {
		return "", s.Failed
	}
	return reason(err)
}

// unpackers are zlib readers that are used again: a new one takes 50 kB.
var unpackers sync.Pool

// openPixels reads a PNG up to its pixels and returns its header, and what unpacks their rows, for unpackers.
func openPixels(from *bufio.Reader) (h pngHead, data *pngData, rows io.ReadCloser, err error) {
	var b [8 + 8 + 13 + 4]byte // signature and IHDR
	if _, err := io.ReadFull(from, b[:]); err != nil {
		return h, nil, nil, broken("is a truncated PNG")
	}
	h = pngHead{width: int(binary.BigEndian.Uint32(b[16:])), height: int(binary.BigEndian.Uint32(b[20:])),
		depth: int(b[24]), kind: int(b[25]), interlaced: b[28] == 1}
	switch {
	case string(b[12:16]) != "IHDR" || !slices.Contains(pngDepths[h.kind], h.depth) || b[26] != 0 || b[27] != 0 ||
		b[28] > 1:
		return h, nil, nil, broken("is no PNG that can be decoded: kind %d of %d bits", h.kind, h.depth)
	case h.width == 0 || h.height == 0:
		return h, nil, nil, broken("is a PNG without pixels")
	case h.width > MaxPixels/h.height:
		return h, nil, nil, broken("has %d by %d pixels, more than are decoded", h.width, h.height)
	}
	h.bits = h.depth * pngChannels[h.kind]
	data = &pngData{from: from, needed: h.kind == 3}
	if rows, _ = unpackers.Get().(io.ReadCloser); rows != nil {
		err = rows.(zlib.Resetter).Reset(data, nil)
	} else {
		rows, err = zlib.NewReader(data)
	}
	if err != nil {
		err = broken("is a PNG whose pixels cannot be unpacked: %v", err)
	}
	return h, data, rows, err
}

func checkPixels(from *bufio.Reader) (err error) {
	defer caught(&err)
	h, _, unpacked, err := openPixels(from)
	must(err)
	defer unpackers.Put(unpacked)
	const packed = "is a PNG whose pixels cannot be unpacked: %v"
	rows := bufio.NewReader(unpacked)
	for pass := range h.passes() {
		for range pass.rows {
			filter, err := rows.ReadByte()
			if err == nil {
				_, err = rows.Discard(pass.bytes)
			}
			need(!errors.Is(err, io.EOF), "is a PNG with too few pixels")
			if err != nil {
				must(broken(packed, err))
			}
			if filter > 4 {
				must(broken("is a PNG with a row of filter %d", filter))
			}
		}
	}
	_, err = rows.ReadByte() // the end has a checksum
	need(err != nil, "is a PNG with too many pixels")
	need(errors.Is(err, io.EOF), packed, err)
	return nil
}

// pngData reads what a PNG's IDAT chunks hold, one after the other.
type pngData struct {
	from    *bufio.Reader
	needed  bool   // its palette is
	palette []byte // three bytes for each colour
	begun   bool
	left    int64 // bytes of the chunk
	err     error
}

// next goes to the next IDAT; other chunks may stand before the first one only.
func (d *pngData) next() error {
	for d.left == 0 && d.err == nil {
		var head [8]byte
		if d.begun {
			_, d.err = d.from.Discard(4) // the checksum
		}
		if d.err == nil {
			_, d.err = io.ReadFull(d.from, head[:])
		}
		length, name := int64(binary.BigEndian.Uint32(head[:4])), string(head[4:])
		switch {
		case d.err != nil:
		case name == "IDAT" && d.needed && d.palette == nil:
			d.err = broken("is a PNG without its palette")
		case name == "IDAT":
			d.begun, d.left = true, length
		case d.begun || name == "IEND":
			d.err = io.EOF
		case name == "PLTE" && length <= 3*256:
			d.palette = make([]byte, length+4)
			_, d.err = io.ReadFull(d.from, d.palette)
			d.palette = d.palette[:length]
		default:
			_, d.err = io.CopyN(io.Discard, d.from, length+4)
		}
	}
	return d.err
}

func (d *pngData) Read(p []byte) (int, error) {
	if err := d.next(); err != nil {
		return 0, err
	}
	n, err := d.from.Read(p[:min(int64(len(p)), d.left)])
	d.left -= int64(n)
	return n, err
}

// ReadByte keeps the unpacking from reading ahead.
func (d *pngData) ReadByte() (byte, error) {
	if err := d.next(); err != nil {
		return 0, err
	}
	d.left--
	return d.from.ReadByte()
}

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
	rgb, alpha := [3]byte{at(0), at(0), at(0)}, byte(255) // of a gray picture
	switch h.kind {
	case 2:
		rgb = [3]byte{at(0), at(1), at(2)}
	case 3:
		rgb = [3]byte{}
		if from := 3 * int(pixel[0]>>(8-h.depth)); from+3 <= len(palette) {
			rgb = [3]byte(palette[from:])
		}
	case 4:
		alpha = at(1)
	case 6:
		rgb, alpha = [3]byte{at(0), at(1), at(2)}, at(3)
	}
	if alpha < 255 {
		return fmt.Sprintf("#%x%02x", rgb, alpha)
	}
	return fmt.Sprintf("#%x", rgb)
}
