package sample

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image/gif"
	"image/jpeg"
	"io"
	"path"
)

type formatError struct{ reason string }

func (e *formatError) Error() string { return e.reason }

func broken(format string, args ...any) error { return &formatError{fmt.Sprintf(format, args...)} }

// stopped is what ends the reading of a file, as a panic up to the function that has deferred caught.
type stopped struct{ error }

func must(err error) {
	if err != nil {
		panic(stopped{err})
	}
}

// need ends the reading of a file that is not as it has to be. Arguments cost even if it is: in loops over what a file
// holds, an if stands in the place of a need with arguments.
func need(ok bool, format string, args ...any) {
	if !ok {
		must(broken(format, args...))
	}
}

// fill fills p, or ends the reading with what a file without so many bytes is.
func fill(f io.Reader, p []byte, without string) {
	_, err := io.ReadFull(f, p)
	need(err == nil, "%s", without)
}

// caught makes what ended the reading the error of the function that defers it.
func caught(err *error) {
	switch p := recover().(type) {
	case nil:
	case stopped:
		*err = p.error
	default:
		panic(p)
	}
}

// Check checks a file of the sample id as Collect does, and returns what is wrong with it, or "".
func Check(id, name string, f io.ReadSeeker, size int64) (wrong string, err error) {
	if _, err = checkFile(name, f, size, nil); err == nil && name == "metadata.json" {
		s := &Source{Reader: f}
		var found metadata
		if found, err = readMetadata(s, io.Discard, id); err == nil && found.others > 0 {
			err = broken("has a task_id that is not %s", id)
		}
		if s.Failed != nil {
			err = s.Failed
		}
	}
	return reason(err)
}

// reason is what is wrong with a file, or "", and the error if it is another one. A formatError that is joined with
// another error is one, too: the other is not of the file.
func reason(err error) (wrong string, other error) {
	if bad, ok := err.(*formatError); ok { //nolint:errorlint // the checks return it bare
		return bad.reason, nil
	}
	return "", err
}

// Describe checks the structure of a file, as Collect does, and returns its media facts. The error is what is wrong.
func Describe(name string, file []byte) (Media, error) {
	return checkFile(name, bytes.NewReader(file), int64(len(file)), nil)
}

// checkFile checks that a file is complete, by its extension, and returns the media facts of a video or a picture. The
// checks read the structure and the checksums of a file and decode no pixel: decoding would cost more CPU than the
// worker is allowed beside the generator. The buffer may be nil.
func checkFile(name string, f io.ReadSeeker, size int64, buffer []byte) (m Media, err error) {
	s := &seekable{Source{Reader: f}, f}
	defer func() {
		if s.Failed != nil { // it was not the file that ended
			err = s.Failed
		}
	}()
	defer caught(&err)
	need(size > 0, "is empty")
	_, err = f.Seek(0, io.SeekStart)
	must(err)
	return checkFormat(name, s, size, buffer), nil
}

func checkFormat(name string, f io.ReadSeeker, size int64, buffer []byte) (m Media) {
	switch path.Ext(name) {
	case ".png":
		m = checkPNG(f, size, buffer)
		_, err := f.Seek(0, io.SeekStart)
		must(err)
		m.Colour = oneColour(f)
	case ".mp4", ".mov":
		m = checkMP4(f, size)
	case ".avi":
		m = checkAVI(f, size)
	case ".webm", ".mkv":
		m = checkMatroska(f, size)
	case ".txt":
		checkText(f)
	case ".jpg", ".jpeg":
		config, _ := jpeg.DecodeConfig(f) // of its header alone: JPEG has no checksums
		m = Media{Width: config.Width, Height: config.Height}
	case ".gif":
		config, _ := gif.DecodeConfig(f)
		m = Media{Width: config.Width, Height: config.Height}
	}
	return m
}

func checkText(f io.Reader) {
	head := make([]byte, 4096)
	n, err := io.ReadFull(f, head)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		must(err)
	}
	need(len(bytes.TrimSpace(head[:n])) > 0 || n == len(head), "holds nothing but blanks")
}

// checkPNG walks the chunks and their CRCs up to IEND, which must end the file.
func checkPNG(f io.Reader, size int64, buffer []byte) (m Media) {
	const truncated = "is a truncated PNG"
	var head [8]byte
	fill(f, head[:], "is no PNG")
	need(string(head[:]) == "\x89PNG\r\n\x1a\n", "is no PNG")
	left := size - 8
	seenData := false
	for first := true; ; first = false {
		fill(f, head[:], truncated)
		length, kind := int64(binary.BigEndian.Uint32(head[:4])), string(head[4:])
		left -= 12 + length
		need(left >= 0, truncated)
		crc := crc32.NewIEEE()
		_, _ = crc.Write(head[4:])
		if first && length >= 8 {
			fill(f, head[:], truncated)
			_, _ = crc.Write(head[:])
			m.Width, m.Height = int(binary.BigEndian.Uint32(head[:4])), int(binary.BigEndian.Uint32(head[4:]))
			length -= 8
		}
		n, err := io.CopyBuffer(crc, io.LimitReader(f, length), buffer)
		need(err == nil && n == length, truncated)
		_, err = io.ReadFull(f, head[:4])
		if err != nil || binary.BigEndian.Uint32(head[:4]) != crc.Sum32() {
			must(broken("is a damaged PNG: the checksum of its %q chunk is wrong", kind))
		}
		need(first == (kind == "IHDR"), "is no PNG: IHDR is not its first chunk")
		seenData = seenData || kind == "IDAT"
		if kind == "IEND" {
			need(seenData, "is a PNG without a picture")
			need(left == 0, "is a PNG followed by %d other bytes", left)
			return m
		}
	}
}

// Source reads from another reader and keeps the error that ended it, io.EOF apart. A caller can so tell wrong bytes
// from a disk or a connection that failed: an archive or a picture that ends too early may be either.
type Source struct {
	io.Reader
	N      int64 // bytes that were read
	Failed error
}

func (s *Source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.N += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		s.Failed = err
	}
	return n, err
}

type seekable struct {
	Source
	io.Seeker
}
