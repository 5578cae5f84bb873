package export

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
)

// finishedPlan is the manifest of an export: the plan that was carried out.
type finishedPlan struct {
	Version int    `json:"version"`
	ID      string `json:"id"` // equal for exports of the same samples in the same form
	*Plan
}

// finish writes what all parts have in common, and the sums last: an export that has them is finished.
func (e *Export) finish(ctx context.Context, plan *Plan, s *Summary) error {
	out := &output{export: e, plan: plan}
	if err := e.Format.Finish(ctx, plan, out); err != nil {
		return err
	}
	if err := writeCard(ctx, plan, out); err != nil {
		return err
	}
	err := out.Create(ctx, manifestFile, 0, func(w io.Writer) error {
		return encodeJSON(w, finishedPlan{1, plan.id(), plan})
	})
	if err != nil {
		return err
	}
	if err := writeCroissant(ctx, plan, out); err != nil {
		return err
	}
	return e.To.Commit(ctx, sumsFile, func(w io.Writer) error {
		s.Files, s.Bytes = 0, 0
		return writeSums(w, out.Files(ctx), func(f Written) bool {
			s.Files++
			s.Bytes += f.Size
			return true
		})
	})
}

// writeSums writes the hashes and names of some files as sha256sum has them.
func writeSums(w io.Writer, files iter.Seq2[Written, error], some func(Written) bool) error {
	lines := bufio.NewWriter(w)
	for f, err := range files {
		if err != nil {
			return err
		}
		if !some(f) {
			continue
		}
		if _, err := fmt.Fprintf(lines, "%s  %s\n", f.SHA256, f.Name); err != nil {
			return err
		}
	}
	return lines.Flush()
}
