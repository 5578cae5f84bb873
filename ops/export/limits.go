package export

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
)

// Limits of a repository on the Hugging Face hub.
const (
	hubFiles      = 100_000
	hubInFolder   = 10_000
	hubFileBytes  = 200e9
	hubShownNames = 5 // of folders and files that break a limit
)

// HubProblems returns in which ways a finished export breaks the hub's limits, and how many files and bytes it has.
func HubProblems(ctx context.Context, from Destination) (problems []string, files int, bytes int64, err error) {
	folders, large := map[string]int{}, []string{}
	for f, err := range from.List(ctx, "") {
		if err != nil {
			return nil, 0, 0, err
		}
		files++
		bytes += f.Size
		folders[path.Dir(f.Name)]++
		if f.Size > hubFileBytes {
			large = append(large, f.Name)
		}
	}
	if files > hubFiles {
		problems = append(problems, fmt.Sprintf("%d files, and the hub takes %d in a repository", files, hubFiles))
	}
	var full []string
	for _, dir := range slices.Sorted(maps.Keys(folders)) {
		if folders[dir] > hubInFolder {
			full = append(full, fmt.Sprintf("%s has %d files, and the hub takes %d in a folder", dir, folders[dir], hubInFolder))
		}
	}
	for _, name := range large {
		full = append(full, fmt.Sprintf("%s has more than 200 GB, and the hub takes no such file", name))
	}
	if n := len(full) - hubShownNames; n > 0 {
		full = append(full[:hubShownNames], fmt.Sprintf("and %d more folders and files", n))
	}
	return append(problems, full...), files, bytes, nil
}
