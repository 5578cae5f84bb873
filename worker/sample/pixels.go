package sample

import (
	"bufio"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"slices"
	"sync"
)

// MaxPixels is how large a picture may be that is decoded, four times 4096 by 4096: a
// few bytes can say that they are a picture of many GB.
const MaxPixels = 64 << 20

// pngHead is what of a PNG's header its rows depend on.
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
	if bad, ok := errors.AsType[*formatError](err); ok {
		return bad.reason, nil
	}
	return "", err
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

func checkPixels(from *bufio.Reader) error {
	h, _, unpacked, err := openPixels(from)
	if err != nil {
		return err
	}
	defer unpackers.Put(unpacked)
	rows := bufio.NewReader(unpacked)
	for pass := range h.passes() {
		for range pass.rows {
			filter, err := rows.ReadByte()
			if err == nil {
				_, err = rows.Discard(pass.bytes)
			}
			if errors.Is(err, io.EOF) {
				return broken("is a PNG with too few pixels")
			}
			if err != nil {
				return broken("is a PNG whose pixels cannot be unpacked: %v", err)
			}
			if filter > 4 {
				return broken("is a PNG with a row of filter %d", filter)
			}
		}
	}
	switch _, err := rows.ReadByte(); { // the end has a checksum
	case err == nil:
		return broken("is a PNG with too many pixels")
	case !errors.Is(err, io.EOF):
		return broken("is a PNG whose pixels cannot be unpacked: %v", err)
	}
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
