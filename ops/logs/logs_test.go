package logs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
)

func filterOf(t *testing.T, tasks ...string) (f Filter) {
	t.Helper()
	for _, text := range tasks {
		task, err := ParseTask(text)
		if err != nil {
			t.Fatal(err)
		}
		f.Tasks = append(f.Tasks, task)
	}
	return f
}

// The patterns are of the documented syntax: JSON selectors, compound
// expressions in parentheses, strings in quotes.
func TestLogPattern(t *testing.T) {
	t.Parallel()
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("059f36b4-87a3-44ab-83d2-6619758307%02d", i))
	}
	both := filterOf(t, "a:7", "m")
	both.Generators = []string{"a"}
	for want, f := range map[string]Filter{
		"": {},
		`{ (($.generator = "a") || ($.generator = "b.c")) }`:           {Generators: []string{"a", "b.c"}},
		`{ (($.message_id = "m-1") || ($.first_message_id = "m-1")) }`: filterOf(t, "m-1"),
		`{ (($.generator = "a")) && (($.dataset = "v2")) }`:            {Generators: []string{"a"}, Dataset: "v2"},
		`{ ((($.generator = "a") && ($.start <= 7) && ($.end > 7)) || ($.message_id = "m") || ($.first_message_id = "m")) && (($.generator = "a")) }`: both,
	} {
		if got := f.pattern(); got != want {
			t.Errorf("pattern\n%s\nwant\n%s", got, want)
		}
	}
	if got := filterOf(t, many...).pattern(); got != "" {
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
		if got := newLine("", "s", raw, at).String(); got != want {
			t.Errorf("%q is shown as\n%q, want\n%q", raw, got, want)
		}
	}
}

// poll returns the messages that one poll shows.
func poll(t *testing.T, s source) []string {
	t.Helper()
	var list []string
	err := s.next(t.Context(), func(l Line) error {
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

// group is a log group in moto, which is AWS here; without MOTO_ENDPOINT the test is
// skipped. CI has one.
type group struct {
	*testing.T
	client *cloudwatchlogs.Client
	name   string
}

func newGroup(t *testing.T) *group {
	t.Helper()
	endpoint := os.Getenv("MOTO_ENDPOINT")
	if endpoint == "" {
		t.Skip("MOTO_ENDPOINT is not set: no moto server to be AWS")
	}
	t.Setenv("AWS_ENDPOINT_URL", endpoint)
	t.Setenv("AWS_ACCESS_KEY_ID", "a")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
	g := &group{T: t, name: fmt.Sprintf("/aws/lambda/logs-%d", time.Now().UnixNano())}
	config, err := (&target.Target{Outputs: stack.Outputs{Region: "us-east-2"}}).AWSConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g.client = cloudwatchlogs.NewFromConfig(config)
	_, err = g.client.CreateLogGroup(t.Context(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &g.name})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// put writes lines into the log group, as Lambda does for one worker.
func (g *group) put(stream string, at time.Time, lines ...string) {
	g.Helper()
	_, _ = g.client.CreateLogStream(g.Context(), &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &g.name,
		LogStreamName: &stream}) // it may exist
	var events []types.InputLogEvent
	for i, line := range lines {
		events = append(events, types.InputLogEvent{Message: &line, Timestamp: aws.Int64(at.UnixMilli() + int64(i))})
	}
	_, err := g.client.PutLogEvents(g.Context(), &cloudwatchlogs.PutLogEventsInput{LogGroupName: &g.name,
		LogStreamName: &stream, LogEvents: events})
	if err != nil {
		g.Fatal(err)
	}
}

// source reads the log group of a stack.
func (g *group) source(f Filter, since time.Time) *cloud {
	g.Helper()
	text, err := json.Marshal(stack.Outputs{LogGroupName: g.name, Region: "us-east-2", BucketName: "b", QueueURL: "q",
		DLQURL: "d", AccountID: "123456789012"})
	file := filepath.Join(g.TempDir(), "outputs.json")
	if err := errors.Join(err, os.WriteFile(file, text, 0o644)); err != nil {
		g.Fatal(err)
	}
	s, err := newCloud(g.Context(), &target.Flags{Outputs: file}, f, since)
	if err != nil {
		g.Fatal(err)
	}
	return s
}

// Each poll shows what is new, also what came late, and nothing twice.
func TestCloudLogsAgainAndAgain(t *testing.T) {
	g := newGroup(t)
	now := time.Now()
	put := func(stream string, ago time.Duration, lines ...string) {
		t.Helper()
		g.put(stream, now.Add(-ago), lines...)
	}
	expect := func(s source, want ...string) {
		t.Helper()
		if got := poll(t, s); !slices.Equal(got, want) {
			t.Errorf("a poll shows %q, want %q", got, want)
		}
	}
	s := g.source(Filter{}, now.Add(-time.Hour))
	expect(s)
	put("a", time.Minute, "first")
	expect(s, "first")
	put("a", 0, "second")
	put("b", 90*time.Second, "late")
	if got := poll(t, s); len(got) != 2 || !slices.Contains(got, "second") || !slices.Contains(got, "late") {
		t.Errorf("a poll shows %q", got)
	}
	expect(s)
	if s.from.Before(now.Add(-lateness)) || len(s.shown) != 3 {
		t.Errorf("it reads back to %s and remembers %d lines", time.Since(s.from), len(s.shown))
	}

	// Lambda's own lines of a task may come much later than the worker's.
	s = g.source(filterOf(t, "maze:7"), now.Add(-time.Hour))
	put("c", 50*time.Second, workerLine(now, "maze", 0, 20, "m-1", "started"),
		workerLine(now, "maze", 20, 40, "m-2", "not wanted"), "REPORT RequestId: r-m-2\tDuration: 1 ms")
	expect(s, "started")
	put("c", 0, "2026 r-m-1 Task timed out after 900.00 seconds",
		"REPORT RequestId: r-m-1\tDuration: 900000.00 ms\tStatus: timeout")
	expect(s, "2026 r-m-1 Task timed out after 900.00 seconds",
		"REPORT RequestId: r-m-1\tDuration: 900000.00 ms\tStatus: timeout")
	expect(s)
	if len(s.requests) != 0 {
		t.Errorf("it still waits for %v", s.requests)
	}

	// More than a page.
	var many []string
	for i := range 6000 {
		many = append(many, fmt.Sprint("line ", i))
	}
	s = g.source(Filter{}, now.Add(time.Minute))
	put("d", -2*time.Minute, many...)
	put("d", -3*time.Minute, many...)
	if got := poll(t, s); len(got) != 2*len(many) {
		t.Errorf("%d lines of %d", len(got), 2*len(many))
	}
	expect(s)

	g.name += "x"
	err := g.source(Filter{}, now).next(t.Context(), func(Line) error { return nil })
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
	source := func(f Filter) *local {
		s, err := newLocal(dir, f, now.Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	all, maze, task := source(Filter{}), source(Filter{Generators: []string{"maze"}}),
		source(Filter{Tasks: []Task{{message: "m-maze"}}})
	for name, test := range map[string]struct {
		s    *local
		want []string
	}{
		"all": {all, []string{"in the old file", "three", "two", "one", "panic: in three", "panic: in one", "",
			"panic: in two"}},
		"generator": {maze, []string{"in the old file", "three", "two", "panic: in three", "", "panic: in two"}},
		"task":      {task, []string{"in the old file", "three", "two", "panic: in three", "panic: in two"}},
	} {
		got := poll(t, test.s)
		slices.Sort(got)
		slices.Sort(test.want)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
		if again := poll(t, test.s); len(again) > 0 {
			t.Errorf("%s: %q again", name, again)
		}
	}

	// The rest of the line, then more just before the file is renamed, a new file, and a new worker.
	appendTo(t, file(0), line(0, "maze", "cut off")[20:])
	if got := poll(t, all); !slices.Equal(got, []string{"cut off"}) {
		t.Errorf("%q", got)
	}
	appendTo(t, file(0), line(0, "maze", "last words"))
	if err := os.Rename(file(0), file(0)+".old"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, file(0), line(-time.Second, "maze", "new file"))
	appendTo(t, file(2), line(-2*time.Second, "maze", "new worker"))
	if got := poll(t, all); !slices.Equal(got, []string{"last words", "new file", "new worker"}) {
		t.Errorf("%q", got)
	}
	if got := poll(t, all); len(got) > 0 {
		t.Errorf("%q again", got)
	}
	if _, err := newLocal(t.TempDir(), Filter{}, now); err == nil ||
		!strings.Contains(err.Error(), "no worker has logged anything") {
		t.Errorf("%v", err)
	}
}

// With --follow, lines come as they are written, until Ctrl-C.
func TestLogsFollow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, follow) // it looks for more every two seconds
}

func follow(t *testing.T) {
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
		show := func(l Line) error { _, err := fmt.Fprintln(w, l); return err }
		done <- errors.Join(Read(ctx, &target.Flags{Stack: stack.Local, LocalDir: dir}, Filter{}, time.Now().Add(-time.Hour),
			true, show, func() error { return nil }), w.Close())
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
