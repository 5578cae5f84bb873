package main

import (
	"bufio"
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
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// LogsCmd shows what the workers log.
type LogsCmd struct {
	Task      []string `help:"Only this task: a message id, as dlq list and queue peek show it, or GENERATOR:INDEX for whatever was done for that sample; may be repeated." placeholder:"ID"`
	Generator []string `help:"Only this generator; may be repeated." placeholder:"NAME" predictor:"generator"`
	Dataset   string   `help:"Only what was done for this dataset." env:"OPS_DATASET" placeholder:"NAME"`
	Since     moment   `help:"Where to begin: a span back from now (15m, 36h, 3d) or a time (2026-08-01T10:00:00Z)." default:"1h" placeholder:"TIME"`
	Follow    bool     `help:"Go on with new lines until Ctrl-C." short:"f"`

	filter logFilter
}

// Help is the long help.
func (*LogsCmd) Help() string {
	return `The lines of all workers, oldest first: from the stack's log group, or for the local stack from its log files, also when it is down. With --task come Lambda's own lines of the invocations that worked on it, which tell of timeouts and memory. A message id also finds the messages that the worker made of that one: the rest of a task that ran out of time.

With --json each line is an object: the worker's as it wrote it (metrics included), any other with time, source and message.

--follow looks every 2 seconds. It shows each line once, and misses one only if that reaches the log group more than two minutes late.

Examples:
  ops --stack dev logs --since 15m --follow
  ops --stack dev logs --task 059f36b4-87a3-44ab-83d2-661975830a7d
  ops --stack dev logs --task maze-task-data-generator:4711 --since 24h
  ops --stack local logs --generator maze-task-data-generator --json | jq 'select(.level == "ERROR")'`
}

// Validate checks the flags.
func (c *LogsCmd) Validate() error {
	c.filter = logFilter{generators: c.Generator, dataset: c.Dataset}
	if c.Dataset != "" {
		if err := task.CheckName(c.Dataset); err != nil {
			return ui.Usage("--dataset %v", err)
		}
	}
	for _, g := range c.Generator {
		if err := task.CheckName(g); err != nil {
			return ui.Usage("--generator %v", err)
		}
	}
	for _, text := range c.Task {
		t, err := parseLogTask(text)
		if err != nil {
			return err
		}
		c.filter.tasks = append(c.filter.tasks, t)
	}
	return nil
}

// logSource is where log lines come from: next hands over the lines that it has
// not handed over before, oldest first.
type logSource interface {
	next(ctx context.Context, show func(logLine) error) error
}

// logPace is the time between two looks of --follow.
const logPace = 2 * time.Second

// Run shows lines.
func (c *LogsCmd) Run(ctx context.Context, o *Output) error {
	var from logSource
	var err error
	since := c.Since.Time
	if o.Stack == stack.Local {
		from, err = newLocalLogs(o.LocalDir, c.filter, since)
	} else {
		from, err = newCloudLogs(ctx, o.Flags, c.filter, since)
	}
	if err != nil {
		return err
	}
	w := bufio.NewWriter(o.Stdout)
	shown := 0
	show := func(l logLine) error {
		text := l.String()
		if o.JSON {
			text = l.json()
		}
		if text == "" {
			return nil
		}
		shown++
		_, err := fmt.Fprintln(w, text)
		return err
	}
	for {
		err := from.next(ctx, show)
		err = errors.Join(err, w.Flush())
		switch {
		case c.Follow && ctx.Err() != nil:
			return nil // Ctrl-C is how it ends
		case err != nil:
			return err
		case !c.Follow:
			if shown == 0 {
				o.Say("no line since %s", since.UTC().Format(time.RFC3339))
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(logPace):
		}
	}
}

// logTask names a task: by a message, or by a sample it makes.
type logTask struct {
	message   string
	generator string
	index     int
}

func parseLogTask(text string) (logTask, error) {
	generator, index, sample := strings.Cut(text, ":")
	if err := task.CheckName(generator); err != nil {
		return logTask{}, ui.Usage("--task %q is no message id and no GENERATOR:INDEX", text)
	}
	if !sample {
		return logTask{message: text}, nil
	}
	n, err := strconv.Atoi(index)
	if err != nil || n < 0 || n >= task.MaxIndex {
		return logTask{}, ui.Usage("--task %q: the index must be a number from 0 to %d", text, task.MaxIndex-1)
	}
	return logTask{generator: generator, index: n}, nil
}

// logFilter says which lines are wanted: those of one of the tasks, if any are
// named, of one of the generators, if any are named, and of the dataset, if one is.
type logFilter struct {
	tasks      []logTask
	generators []string
	dataset    string
}

func (f logFilter) empty() bool { return len(f.tasks)+len(f.generators)+len(f.dataset) == 0 }

// match decides about a line of the worker.
func (f logFilter) match(l logLine) bool {
	if len(f.generators) > 0 && !slices.Contains(f.generators, l.text("generator")) || f.dataset != "" &&
		l.text("dataset") != f.dataset {
		return false
	}
	return len(f.tasks) == 0 || slices.ContainsFunc(f.tasks, func(t logTask) bool {
		if t.message != "" {
			return l.text("message_id") == t.message || l.text("first_message_id") == t.message
		}
		start, end := l.number("start"), l.number("end")
		return l.text("generator") == t.generator && start <= t.index && t.index < end
	})
}

// pattern is the same as a filter pattern of CloudWatch Logs, which then sends
// little else. Names and ids have no character that means something in it.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
func (f logFilter) pattern() string {
	var tasks, generators, datasets []string
	if f.dataset != "" {
		datasets = append(datasets, fmt.Sprintf(`($.dataset = "%s")`, f.dataset))
	}
	for _, t := range f.tasks {
		if t.message != "" {
			tasks = append(tasks, fmt.Sprintf(`($.message_id = "%[1]s") || ($.first_message_id = "%[1]s")`, t.message))
		} else {
			tasks = append(tasks, fmt.Sprintf(`(($.generator = "%s") && ($.start <= %d) && ($.end > %d))`, t.generator, t.index,
				t.index))
		}
	}
	for _, g := range f.generators {
		generators = append(generators, fmt.Sprintf(`($.generator = "%s")`, g))
	}
	var all []string
	for _, any := range [][]string{tasks, generators, datasets} {
		if len(any) > 0 {
			all = append(all, "("+strings.Join(any, " || ")+")")
		}
	}
	p := "{ " + strings.Join(all, " && ") + " }"
	if f.empty() || len(p) > maxPattern {
		return "" // everything comes, and match decides
	}
	return p
}

// maxPattern is CloudWatch's limit of a filter pattern, in characters.
// https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
const maxPattern = 1024

// logLine is one line of a log.
type logLine struct {
	id     string // unique in its log; "" where lines have none
	time   time.Time
	source string // log stream or file
	raw    string
	fields map[string]any // nil if it is not one of the worker's
}

func newLogLine(id, source, raw string, at time.Time) logLine {
	l := logLine{id: id, time: at, source: source, raw: strings.TrimRight(raw, "\r\n")}
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

func (l logLine) text(key string) string {
	s, _ := l.fields[key].(string)
	return s
}

// number is -1 where there is none.
func (l logLine) number(key string) int {
	n, err := strconv.Atoi(fmt.Sprint(l.fields[key]))
	if err != nil {
		return -1
	}
	return n
}

// isMetric reports whether it is one of the worker's CloudWatch metrics.
func (l logLine) isMetric() bool { return l.fields["_aws"] != nil }

func byTime(a, b logLine) int { return a.time.Compare(b.time) }

// json is the line as one JSON object.
func (l logLine) json() string {
	if l.fields != nil {
		return l.raw
	}
	text, _ := json.Marshal(map[string]any{"time": l.time.UTC(), "source": l.source, "message": l.raw})
	return string(text)
}

// String is the line for people, or "" for one that says nothing to them: a
// metric, or that an invocation begins or ends.
func (l logLine) String() string {
	at := l.time.UTC().Format("2006-01-02T15:04:05.000Z")
	if l.fields == nil {
		for _, dull := range []string{"START RequestId: ", "END RequestId: ", "INIT_START "} {
			if strings.HasPrefix(l.raw, dull) {
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
		fmt.Fprintf(&b, " %s=%s", key, shown(l.fields[key]))
	}
	return b.String()
}

// shown is a value as a person reads it, in quotes where it is more than a word.
func shown(v any) string {
	s := fmt.Sprint(v)
	if n, ok := v.(json.Number); ok && strings.Contains(s, ".") {
		f, _ := n.Float64()
		return strconv.FormatFloat(f, 'f', 3, 64)
	}
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || r == '"' ||
			!unicode.IsPrint(r)
	}) {
		return strconv.Quote(s)
	}
	return s
}

// visible replaces what would move the cursor or colour the screen: generators
// decide what some lines say.
func visible(r rune) rune {
	if unicode.IsPrint(r) || r == '\t' {
		return r
	}
	return '·'
}
