package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

func filterOf(t *testing.T, c LogsCmd) logFilter {
	t.Helper()
	c.Since = moment{time.Now().Add(-time.Hour)}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c.filter
}

// The patterns are of the documented syntax: JSON selectors, compound
// expressions in parentheses, strings in quotes.
func TestLogPattern(t *testing.T) {
	t.Parallel()
	many := LogsCmd{}
	for i := range 40 {
		many.Task = append(many.Task, fmt.Sprintf("059f36b4-87a3-44ab-83d2-6619758307%02d", i))
	}
	for want, c := range map[string]LogsCmd{
		"": {},
		`{ (($.generator = "a") || ($.generator = "b.c")) }`:           {Generator: []string{"a", "b.c"}},
		`{ (($.message_id = "m-1") || ($.first_message_id = "m-1")) }`: {Task: []string{"m-1"}},
		`{ (($.generator = "a")) && (($.dataset = "v2")) }`:            {Generator: []string{"a"}, Dataset: "v2"},
		`{ ((($.generator = "a") && ($.start <= 7) && ($.end > 7)) || ($.message_id = "m") || ($.first_message_id = "m")) && (($.generator = "a")) }`: {Task: []string{"a:7", "m"}, Generator: []string{"a"}},
	} {
		if got := filterOf(t, c).pattern(); got != want {
			t.Errorf("pattern\n%s\nwant\n%s", got, want)
		}
	}
	if got := filterOf(t, many).pattern(); got != "" {
		t.Errorf("a pattern of %d characters, CloudWatch takes %d", len(got), maxPattern)
	}
}

func workerLine(at time.Time, generator string, start, end int, message, msg string) string {
	return fmt.Sprintf(`{"time":%q,"level":"INFO","msg":%q,"request_id":"r-%s","message_id":%q,"first_message_id":%q,"generator":%q,"start":%d,"end":%d}`,
		at.UTC().Format(time.RFC3339Nano), msg, message, message, message, generator, start, end)
}

// Lines that people see move no cursor, whatever they say.
func TestLogLineString(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 8, 1, 10, 15, 0, 5e6, time.UTC)
	for raw, want := range map[string]string{
		workerLine(at, "maze", 0, 20, "m",
			"task started"): `2026-08-01T10:15:00.005Z INFO  maze 0-19 task started message_id=m`,
		"Traceback:\x1b[2J\r\n":                                "2026-08-01T10:15:00.005Z Traceback:·[2J",
		`{"level":"WARN","msg":"\u001b[2J","x":1.23456,"y":2}`: "2026-08-01T10:15:00.005Z WARN  ·[2J x=1.235 y=2",
		`{"level":"WARN","msg":"m","x":"\u001b[2J","y":"a b"}`: `2026-08-01T10:15:00.005Z WARN  m x="\x1b[2J" y="a b"`,
		"START RequestId: r":                                   "",
		`{"_aws":{}}`:                                          "",
		"":                                                     "",
		"{broken":                                              "2026-08-01T10:15:00.005Z {broken",
	} {
		if got := newLogLine("", "s", raw, at).String(); got != want {
			t.Errorf("%q is shown as\n%q, want\n%q", raw, got, want)
		}
	}
}

// look returns the messages that one look shows.
func look(t *testing.T, s logSource) []string {
	t.Helper()
	var list []string
	err := s.next(t.Context(), func(l logLine) error {
		if l.fields == nil {
			list = append(list, l.raw)
		} else {
			list = append(list, l.text("msg"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func (c *motoCloud) source(f logFilter, since time.Time) *cloudLogs {
	file, err := c.save(c.TempDir())
	c.ok(nil, err)
	s, err := newCloudLogs(c.Context(), &target.Flags{Outputs: file}, f, since)
	c.ok(s, err)
	return s
}

// Each look shows what is new, also what came late, and nothing twice.
func TestCloudLogsAgainAndAgain(t *testing.T) {
	c := newMotoCloud(t)
	c.setEnvironment(t)
	now := time.Now()
	put := func(stream string, ago time.Duration, lines ...string) {
		t.Helper()
		c.ok(nil, c.put(t.Context(), stream, now.Add(-ago), lines...))
	}
	expect := func(s logSource, want ...string) {
		t.Helper()
		if got := look(t, s); !slices.Equal(got, want) {
			t.Errorf("a look shows %q, want %q", got, want)
		}
	}
	s := c.source(logFilter{}, now.Add(-time.Hour))
	expect(s)
	put("a", time.Minute, "first")
	expect(s, "first")
	put("a", 0, "second")
	put("b", 90*time.Second, "late")
	if got := look(t, s); len(got) != 2 || !slices.Contains(got, "second") || !slices.Contains(got, "late") {
		t.Errorf("a look shows %q", got)
	}
	expect(s)
	if s.from.Before(now.Add(-lateness)) || len(s.shown) != 3 {
		t.Errorf("it looks back to %s and remembers %d lines", time.Since(s.from), len(s.shown))
	}

	// Lambda's own lines of a task may come much later than the worker's.
	s = c.source(filterOf(t, LogsCmd{Task: []string{"maze:7"}}), now.Add(-time.Hour))
	put("c", 50*time.Second, workerLine(now, "maze", 0, 20, "m-1", "started"),
		workerLine(now, "maze", 20, 40, "m-2", "not wanted"), "REPORT RequestId: r-m-2\tDuration: 1 ms")
	expect(s, "started")
	put("c", 0, "2026 r-m-1 Task timed out after 900.00 seconds",
		"REPORT RequestId: r-m-1\tDuration: 900000.00 ms\tStatus: timeout")
	expect(s, "2026 r-m-1 Task timed out after 900.00 seconds",
		"REPORT RequestId: r-m-1\tDuration: 900000.00 ms\tStatus: timeout")
	expect(s)
	if len(s.requests) != 0 {
		t.Errorf("it still looks for %v", s.requests)
	}

	// More than a page.
	var many []string
	for i := range 6000 {
		many = append(many, fmt.Sprint("line ", i))
	}
	s = c.source(logFilter{}, now.Add(time.Minute))
	put("d", -2*time.Minute, many...)
	put("d", -3*time.Minute, many...)
	if got := look(t, s); len(got) != 2*len(many) {
		t.Errorf("%d lines of %d", len(got), 2*len(many))
	}
	expect(s)

	c.LogGroupName += "x"
	err := c.source(logFilter{}, now).next(t.Context(), func(logLine) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "read the log group") {
		t.Errorf("%v", err)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// A log file is read as it grows, and through its renaming.
func TestLocalLogs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	file := func(n int) string { return filepath.Join(dir, "logs", fmt.Sprintf("worker-%d.log", n)) }
	line := func(ago time.Duration, generator, msg string) string {
		return workerLine(now.Add(-ago), generator, 0, 20, "m-"+generator, msg) + "\n"
	}
	appendTo(t, file(0)+".old", line(3*time.Hour, "maze", "too old")+line(10*time.Minute, "maze", "in the old file"))
	appendTo(t, file(0), line(3*time.Minute, "maze", "three")+"panic: in three\n"+line(time.Minute, "chess", "one")+
		"panic: in one\n"+line(0, "maze", "cut off")[:20])
	appendTo(t, file(1), line(2*time.Minute, "maze", "two")+`{"generator":"maze","_aws":{}}`+"\npanic: in two\n")
	appendTo(t, filepath.Join(dir, "logs", "s3.log"), "not of a worker\n")
	source := func(f logFilter) *localLogs {
		s, err := newLocalLogs(dir, f, now.Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	all, maze, task := source(logFilter{}), source(logFilter{generators: []string{"maze"}}),
		source(logFilter{tasks: []logTask{{message: "m-maze"}}})
	for name, test := range map[string]struct {
		s    *localLogs
		want []string
	}{
		"all": {all, []string{"in the old file", "three", "two", "one", "panic: in three", "panic: in one", "",
			"panic: in two"}},
		"generator": {maze, []string{"in the old file", "three", "two", "panic: in three", "", "panic: in two"}},
		"task":      {task, []string{"in the old file", "three", "two", "panic: in three", "panic: in two"}},
	} {
		got := look(t, test.s)
		slices.Sort(got)
		slices.Sort(test.want)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
		if again := look(t, test.s); len(again) > 0 {
			t.Errorf("%s: %q again", name, again)
		}
	}

	// The rest of the line, then more just before the file is renamed, a new file, and a new worker.
	appendTo(t, file(0), line(0, "maze", "cut off")[20:])
	if got := look(t, all); !slices.Equal(got, []string{"cut off"}) {
		t.Errorf("%q", got)
	}
	appendTo(t, file(0), line(0, "maze", "last words"))
	if err := os.Rename(file(0), file(0)+".old"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, file(0), line(-time.Second, "maze", "new file"))
	appendTo(t, file(2), line(-2*time.Second, "maze", "new worker"))
	if got := look(t, all); !slices.Equal(got, []string{"last words", "new file", "new worker"}) {
		t.Errorf("%q", got)
	}
	if got := look(t, all); len(got) > 0 {
		t.Errorf("%q again", got)
	}
	if _, err := newLocalLogs(t.TempDir(), logFilter{}, now); err == nil ||
		!strings.Contains(err.Error(), "no worker has logged anything") {
		t.Errorf("%v", err)
	}
}

// With --follow, lines come as they are written, until Ctrl-C.
func TestLogsFollow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "logs", "worker-0.log")
	appendTo(t, path, workerLine(time.Now(), "maze", 0, 20, "m", "before")+"\n")
	r, w := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() {
		c := &LogsCmd{Since: moment{time.Now().Add(-time.Hour)}, Follow: true}
		done <- errors.Join(c.Run(ctx, &Output{&ui.Output{Style: &ui.Style{}, Stdout: w, Stderr: io.Discard},
			&target.Flags{Stack: stack.Local, LocalDir: dir}}), w.Close())
	}()
	lines := bufio.NewScanner(r)
	for _, msg := range []string{"before", "after", "much after"} {
		if msg != "before" {
			appendTo(t, path, workerLine(time.Now(), "maze", 0, 20, "m", msg)+"\n")
		}
		if !lines.Scan() || !strings.Contains(lines.Text(), " "+msg+" message_id=m") {
			t.Fatalf("%q: %q", msg, lines.Text())
		}
	}
	stop()
	if lines.Scan() {
		t.Errorf("%q again", lines.Text())
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
