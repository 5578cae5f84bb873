package workers

import (
	"bytes"
	"io"
	"sync"
)

// Lines passes the output of several processes on in whole lines.
type Lines struct {
	mu sync.Mutex
	To io.Writer
}

// Of returns the writer of one process.
func (l *Lines) Of() io.Writer { return &lineWriter{to: l} }

type lineWriter struct {
	to   *Lines
	rest []byte // of a line that has not ended
}

func (w *lineWriter) Write(p []byte) (int, error) {
	end := bytes.LastIndexByte(p, '\n') + 1
	if end == 0 {
		w.rest = append(w.rest, p...)
		return len(p), nil
	}
	w.to.mu.Lock()
	defer w.to.mu.Unlock()
	_, err := w.to.To.Write(append(w.rest, p[:end]...))
	w.rest = append([]byte(nil), p[end:]...)
	return len(p), err
}
