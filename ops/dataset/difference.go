package dataset

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Difference is one thing in which two datasets differ.
type Difference struct {
	Generator string `json:"generator,omitempty"` // empty for what holds for all
	What      string `json:"what"`
	A         string `json:"a"`
	B         string `json:"b"`
}

// Differences compares what two datasets pin and were asked for.
func Differences(a, b *task.Manifest) []Difference {
	list := []Difference{}
	compare := func(generator, what string, x, y any) {
		if x, y := fmt.Sprint(x), fmt.Sprint(y); x != y {
			list = append(list, Difference{generator, what, x, y})
		}
	}
	compare("", "seed", a.Seed, b.Seed)
	compare("", "format", a.Format, b.Format)
	var names []string
	for _, g := range slices.Concat(a.Generators, b.Generators) {
		names = append(names, g.Name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		x, y := a.Generator(name), b.Generator(name)
		if x == nil || y == nil {
			exists := map[bool]string{true: "yes", false: "no"}
			compare(name, "exists", exists[x != nil], exists[y != nil])
			continue
		}
		compare(name, "chunk", x.ChunkSize, y.ChunkSize)
		compare(name, "options", x.Options, y.Options)
		compare(name, "commits", strings.Join(a.Commits(name), ", "), strings.Join(b.Commits(name), ", "))
		compare(name, "locks", strings.Join(a.Locks(name), ", "), strings.Join(b.Locks(name), ", "))
		compare(name, "asked for", Extent(a.Asked(name)), Extent(b.Asked(name)))
	}
	return list
}
