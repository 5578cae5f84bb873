package export_test

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
)

// listed is a destination that holds files which need not be there.
type listed struct {
	export.Destination
	files []export.Written
}

func (l listed) List(context.Context, string) iter.Seq2[export.Written, error] {
	return func(yield func(export.Written, error) bool) {
		for _, f := range l.files {
			if !yield(f, nil) {
				return
			}
		}
	}
}

func many(n int, folder string) (list []export.Written) {
	for i := range n {
		list = append(list, export.Written{Name: fmt.Sprintf("%s/%d", folder, i), Size: 1})
	}
	return list
}

// What is within the hub's limits has no problem; what is beyond one has one that names it.
func TestHubProblems(t *testing.T) {
	var crowded []export.Written
	for i := range 7 {
		crowded = append(crowded, many(10_001, fmt.Sprintf("f%d", i))...)
	}
	var total []export.Written
	for i := range 11 {
		total = append(total, many(9_999, fmt.Sprintf("f%d", i))...)
	}
	for _, c := range []struct {
		name  string
		files []export.Written
		want  []string
	}{
		{"within", append(many(10_000, "a"), export.Written{Name: "b", Size: 200e9}), nil},
		{"one too many in a folder", many(10_001, "a"), []string{"a has 10001 files"}},
		{"large", []export.Written{{Name: "data/x.tar", Size: 200e9 + 1}}, []string{"data/x.tar has more than 200 GB"}},
		{"many", total, []string{"109989 files"}},
		{"crowded", crowded, []string{"f0 has", "f1 has", "f2 has", "f3 has", "f4 has", "and 2 more"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			problems, files, _, err := export.HubProblems(t.Context(), listed{files: c.files})
			check(t, err)
			if files != len(c.files) || len(problems) != len(c.want) {
				t.Fatalf("%d files: %q", files, problems)
			}
			for i, want := range c.want {
				if !strings.HasPrefix(problems[i], want) {
					t.Errorf("%q, not %q", problems[i], want)
				}
			}
		})
	}
}
