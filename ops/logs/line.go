package logs

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

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

// String is the line for people, or "" for a metric and for the start or end of an
// invocation.
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
		return unicode.IsSpace(r) || r == '"' ||
			!unicode.IsPrint(r)
	}) {
		return strconv.Quote(s)
	}
	return s
}

// visible replaces what would move the cursor or colour the screen: some lines come
// from generators.
func visible(r rune) rune {
	if unicode.IsPrint(r) || r == '\t' {
		return r
	}
	return '·'
}
