package contract

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

type difference struct {
	samples int      // that differ in more than times
	times   bool     // some differ in times
	in      []string // files that differ, and of a JSON file the fields; sorted
}

func (d difference) none() bool { return d.samples == 0 }

// compare compares as many samples as both have. Points in time in JSON files make no difference, but are told.
func compare(a, b []sample.Sample) (d difference, err error) {
	in := map[string]bool{}
	for i := range min(len(a), len(b)) {
		differs := false
		names := map[string]bool{}
		for _, f := range slices.Concat(a[i].Files, b[i].Files) {
			names[f.Name] = true
		}
		for name := range names {
			x, y := fileOf(a[i], name), fileOf(b[i], name)
			switch {
			case x.SHA256 == y.SHA256:
				continue
			case path.Ext(name) == ".json" && x.Path != "" && y.Path != "":
				before, err := os.ReadFile(x.Path)
				after, failed := os.ReadFile(y.Path)
				if err := cmp.Or(err, failed); err != nil {
					return d, err
				}
				fields, times := DifferingFields(before, after)
				if times && len(fields) > 0 {
					d.times = true
					continue
				}
				if len(fields) > 0 {
					name += fmt.Sprintf(" (%s)", strings.Join(fields[:min(len(fields), 3)], ", "))
				}
			}
			in[name], differs = true, true
		}
		if differs {
			d.samples++
		}
	}
	d.in = slices.Sorted(maps.Keys(in))
	return d, nil
}

func fileOf(s sample.Sample, name string) sample.File {
	for _, f := range s.Files {
		if f.Name == name {
			return f
		}
	}
	return sample.File{}
}

// DifferingFields names the fields in which two JSON texts differ, with dots between the levels, and reports whether
// all of them are times. It returns none for what is no JSON.
func DifferingFields(before, after []byte) (fields []string, times bool) {
	var a, b any
	if decode(before, &a) != nil || decode(after, &b) != nil {
		return nil, false
	}
	times = true
	var walk func(name string, a, b any)
	walk = func(name string, a, b any) {
		x, isObject := a.(map[string]any)
		y, other := b.(map[string]any)
		if !isObject || !other {
			if !reflect.DeepEqual(a, b) {
				fields = append(fields, name)
				times = times && isTime(name, a) && isTime(name, b)
			}
			return
		}
		all := maps.Clone(x)
		maps.Copy(all, y)
		for k := range all {
			walk(strings.TrimPrefix(name+"."+k, "."), x[k], y[k])
		}
	}
	walk("", a, b)
	slices.Sort(fields)
	return fields, times
}

func decode(text []byte, to *any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode(to)
}

// isTime reports whether a value is written as a point in time, or a number in a field whose name says so.
func isTime(name string, v any) bool {
	switch v := v.(type) {
	case string:
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999",
			time.DateTime, time.RFC1123, time.ANSIC} {
			if _, err := time.Parse(layout, v); err == nil {
				return true
			}
		}
	case json.Number:
		name = strings.ToLower(name)
		return strings.Contains(name, "time") || strings.Contains(name, "date") || strings.HasSuffix(name, "created") ||
			strings.HasSuffix(name, "_at")
	}
	return false
}
