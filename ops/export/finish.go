package export

import (
	"context"
	"fmt"
	"io"
)

// finishedPlan is the manifest of an export: the plan that was carried out.
type finishedPlan struct {
	Version int    `json:"version"`
	ID      string `json:"id"` // equal for exports of the same samples in the same form
	*Plan
}

// finish writes what all parts have in common, and the sums last: an export that has them is
// finished.
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
		h := newHashing(w)
		s.Files, s.Bytes = 0, 0
		for f, err := range out.Files(ctx) {
			if err != nil {
				return err
			}
			s.Files++
			s.Bytes += f.Size
			if _, err := fmt.Fprintf(h, "%s  %s\n", f.SHA256, f.Name); err != nil {
				return err
			}
		}
		return h.Flush()
	})
}
