package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/mattn/go-isatty"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
)

// Output is where commands write: data to standard output, talk to standard
// error.
type Output struct {
	*Globals
	data     io.Writer
	talk     io.Writer
	answers  io.Reader
	terminal bool // talk goes to a person
	mu       sync.Mutex
	bar      bool // a progress bar stands on the current line
	said     time.Time
}

func newOutput(g *Globals) *Output {
	return &Output{Globals: g, data: os.Stdout, talk: os.Stderr, answers: os.Stdin, terminal: isatty.IsTerminal(os.Stderr.Fd())}
}

// Print prints data: as JSON if that is wanted, else as table writes it.
func (o *Output) Print(v any, table func(w io.Writer)) error {
	o.clear()
	if o.JSON {
		e := json.NewEncoder(o.data)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(o.data, 0, 8, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// Say tells a person something.
func (o *Output) Say(format string, args ...any) {
	o.clear()
	fmt.Fprintf(o.talk, format+"\n", args...)
}

// Changing says what is about to be changed.
func (o *Output) Changing(t *Target) { o.Say("%s", t) }

// Confirm asks before something that cannot be undone. Where nobody can answer
// it refuses.
func (o *Output) Confirm(question string) error {
	if o.Yes {
		return nil
	}
	o.clear()
	in, ok := o.answers.(*os.File)
	if !ok || !isatty.IsTerminal(in.Fd()) {
		return withHint(fmt.Errorf("%s: nobody is there to confirm it", question), "the same with --yes")
	}
	fmt.Fprintf(o.talk, "%s? [y/N] ", question)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(line)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

// Progress shows how far something is: a bar on a terminal, a plain line every
// few seconds elsewhere.
func (o *Output) Progress(what string, done, total int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if !o.terminal {
		if done < total && now.Sub(o.said) < 5*time.Second {
			return
		}
		o.said = now
		fmt.Fprintf(o.talk, "%s %s of %s\n", what, count(done), count(total))
		return
	}
	if done < total && now.Sub(o.said) < 100*time.Millisecond {
		return
	}
	o.said, o.bar = now, true
	const width = 30
	full := width
	if total > 0 {
		full = width * min(done, total) / total // totals may be estimates
	}
	fmt.Fprintf(o.talk, "\r\033[K%s %s%s %s of %s", what, strings.Repeat("█", full), strings.Repeat("░", width-full), count(done), count(total))
}

// clear ends the line of a progress bar.
func (o *Output) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bar {
		fmt.Fprintln(o.talk)
		o.bar = false
	}
}

// count writes a number with separators: 12,345.
func count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size writes a number of bytes: 1.5 MB.
func size(n int64) string {
	f, unit := float64(n), "B"
	for _, next := range []string{"kB", "MB", "GB", "TB"} {
		if f < 1000 {
			break
		}
		f, unit = f/1000, next
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// plural writes a number and what it counts: 1 sample, 2 samples.
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return count(n) + " " + what + "s"
}

func span(d time.Duration) string { return plan.Span(d) }

// fromHere writes a path below the working folder as somebody there would.
func fromHere(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if name, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(name) {
		return name
	}
	return path
}
