// Package logs reads what the workers log: from a stack's log group in CloudWatch, or
// from the log files of the local stack.
package logs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

const pace = 2 * time.Second // the time between two polls of a log that is followed

// source is a log: next passes the lines that it has not passed before to show, oldest first.
type source interface {
	next(ctx context.Context, show func(Line) error) error
}

// Read passes the lines of a stack's log since a time to show, and calls flush after
// each poll. With follow it continues with new lines until ctx ends, which is no error.
func Read(ctx context.Context, f *target.Flags, filter Filter, since time.Time, follow bool, show func(Line) error,
	flush func() error) error {
	from, err := open(ctx, f, filter, since)
	if err != nil {
		return err
	}
	for {
		err := errors.Join(from.next(ctx, show), flush())
		switch {
		case follow && ctx.Err() != nil:
			return nil
		case err != nil || !follow:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pace):
		}
	}
}

func open(ctx context.Context, f *target.Flags, filter Filter, since time.Time) (source, error) {
	if f.Stack == stack.Local {
		return newLocal(f.LocalDir, filter, since)
	}
	return newCloud(ctx, f, filter, since)
}

// Task names a task: by a message, or by a sample that it makes.
type Task struct {
	message   string
	generator string
	index     int
}

// ParseTask reads a message id, or GENERATOR:INDEX.
func ParseTask(text string) (Task, error) {
	generator, index, sample := strings.Cut(text, ":")
	if err := task.CheckName(generator); err != nil {
		return Task{}, fmt.Errorf("%q is no message id and no GENERATOR:INDEX", text)
	}
	if !sample {
		return Task{message: text}, nil
	}
	n, err := strconv.Atoi(index)
	if err != nil || n < 0 || n >= task.MaxIndex {
		return Task{}, fmt.Errorf("%q: the index must be a number from 0 to %d", text, task.MaxIndex-1)
	}
	return Task{generator: generator, index: n}, nil
}

// Filter chooses lines: those of one of the tasks, of one of the
// generators, and of the dataset. An empty field allows all.
type Filter struct {
	Tasks      []Task
	Generators []string
	Dataset    string
}

func (f Filter) empty() bool { return len(f.Tasks)+len(f.Generators)+len(f.Dataset) == 0 }

// match decides about a line of the worker.
func (f Filter) match(l Line) bool {
	if len(f.Generators) > 0 && !slices.Contains(f.Generators, l.text("generator")) || f.Dataset != "" &&
		l.text("dataset") != f.Dataset {
		return false
	}
	return len(f.Tasks) == 0 || slices.ContainsFunc(f.Tasks, func(t Task) bool {
		if t.message != "" {
			return l.text("message_id") == t.message || l.text("first_message_id") == t.message
		}
		start, end := l.number("start"), l.number("end")
		return l.text("generator") == t.generator && start <= t.index && t.index < end
	})
}

// pattern is the filter as a pattern of CloudWatch Logs, so that little else is sent. Names and ids have no character
// that means something in it.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
func (f Filter) pattern() string {
	var tasks, generators, datasets []string
	if f.Dataset != "" {
		datasets = append(datasets, fmt.Sprintf(`($.dataset = "%s")`, f.Dataset))
	}
	for _, t := range f.Tasks {
		if t.message != "" {
			tasks = append(tasks, fmt.Sprintf(`($.message_id = "%[1]s") || ($.first_message_id = "%[1]s")`, t.message))
		} else {
			tasks = append(tasks, fmt.Sprintf(`(($.generator = "%s") && ($.start <= %d) && ($.end > %d))`, t.generator, t.index,
				t.index))
		}
	}
	for _, g := range f.Generators {
		generators = append(generators, fmt.Sprintf(`($.generator = "%s")`, g))
	}
	var all []string
	for _, terms := range [][]string{tasks, generators, datasets} {
		if len(terms) > 0 {
			all = append(all, "("+strings.Join(terms, " || ")+")")
		}
	}
	p := "{ " + strings.Join(all, " && ") + " }"
	if f.empty() || len(p) > maxPattern {
		return "" // all lines are sent, and match decides
	}
	return p
}

// maxPattern is CloudWatch's limit of a filter pattern, in characters.
// https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
const maxPattern = 1024

// Line is one line of a log.
type Line struct {
	id     string // unique in its log; "" where lines have none
	time   time.Time
	source string // log stream or file
	raw    string
	fields map[string]any // nil if it is not one of the worker's
}

func newLine(id, source, raw string, at time.Time) Line {
	l := Line{id: id, time: at, source: source, raw: strings.TrimRight(raw, "\r\n")}
	d := json.NewDecoder(strings.NewReader(l.raw))
	d.UseNumber()
	if d.Decode(&l.fields) != nil || d.More() {
		l.fields = nil
	}
	if t, err := time.Parse(time.RFC3339Nano, l.text("time")); err == nil {
		l.time = t
	}
	return l
}

func (l Line) text(key string) string {
	s, _ := l.fields[key].(string)
	return s
}

// number returns a numeric field, -1 if there is none.
func (l Line) number(key string) int {
	n, err := strconv.Atoi(fmt.Sprint(l.fields[key]))
	if err != nil {
		return -1
	}
	return n
}

// isMetric reports whether it is one of the worker's CloudWatch metrics.
func (l Line) isMetric() bool { return l.fields["_aws"] != nil }

func byTime(a, b Line) int { return a.time.Compare(b.time) }

// JSON is the line as one JSON object.
func (l Line) JSON() string {
	if l.fields != nil {
		return l.raw
	}
	text, _ := json.Marshal(map[string]any{"time": l.time.UTC(), "source": l.source, "message": l.raw})
	return string(text)
}

// String is the line for people, or "" for a metric and for the start or end of an invocation.
func (l Line) String() string {
	at := l.time.UTC().Format("2006-01-02T15:04:05.000Z")
	if l.fields == nil {
		for _, boring := range []string{"START RequestId: ", "END RequestId: ", "INIT_START "} {
			if strings.HasPrefix(l.raw, boring) {
				return ""
			}
		}
		text := strings.Join(strings.Fields(strings.Map(visible, l.raw)), " ")
		if text == "" {
			return ""
		}
		return at + " " + text
	}
	if l.isMetric() {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-5s", at, l.text("level"))
	if g := l.text("generator"); g != "" {
		fmt.Fprintf(&b, " %s %d-%d", g, l.number("start"), l.number("end")-1)
	}
	fmt.Fprintf(&b, " %s", strings.Map(visible, l.text("msg")))
	for _, key := range slices.Sorted(maps.Keys(l.fields)) {
		switch key {
		case "time", "level", "msg", "generator", "start", "end", "request_id", "run_id", "first_message_id":
			continue
		}
		fmt.Fprintf(&b, " %s=%s", key, value(l.fields[key]))
	}
	return b.String()
}

// value formats a value for people, in quotes if it is more than a word.
func value(v any) string {
	s := fmt.Sprint(v)
	if n, ok := v.(json.Number); ok && strings.Contains(s, ".") {
		f, _ := n.Float64()
		return strconv.FormatFloat(f, 'f', 3, 64)
	}
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || r == '"' || !unicode.IsPrint(r)
	}) {
		return strconv.Quote(s)
	}
	return s
}

// visible replaces what would move the cursor or colour the screen: some lines come from generators.
func visible(r rune) rune {
	if unicode.IsPrint(r) || r == '\t' {
		return r
	}
	return '·'
}
