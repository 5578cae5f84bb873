package export

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
)

// vbvr writes what VBVR-Dataset is published as: tars/<generator>.tar, in which a sample is
// <generator>/<domain>_task/<id>/, and data/metadata.parquet with a row for each sample.
type vbvr struct{}

// VBVR returns the format vbvr.
func VBVR() Format { return vbvr{} }

func (vbvr) Name() string { return "vbvr" }

func (vbvr) Cut(int64) Cut { return Cut{Rows: true} }

func (vbvr) Check(*Plan) error { return nil }

func tarFile(generator string) string { return "tars/" + generator + ".tar" }

// sampleFolder is where a sample lies in the tar file of its generator.
func sampleFolder(r *Row) string { return fmt.Sprintf("%s/%s_task/%s/", r.Generator, r.Domain, r.ID) }

func (vbvr) Part(ctx context.Context, p Part, rows iter.Seq2[*Row, error], out Output) error {
	return out.Create(ctx, tarFile(p.Generator), p.Bytes, func(w io.Writer) error {
		archive := newTar(w)
		for r, err := range rows {
			if err != nil {
				return err
			}
			for i := range r.Files {
				if err := archive.add(sampleFolder(r)+r.Files[i].Name, &r.Files[i]); err != nil {
					return err
				}
			}
		}
		return archive.Close()
	})
}

// vbvrColumns are the published columns.
var vbvrColumns = []Column{{"id", Int}, {"generator", Label}, {"task", Label}, {"sample_id", Text}, {"prompt", Text},
	{"metadata_json", Text}, {"first_frame_path", Text}, {"final_frame_path", Text}, {"ground_truth_video_path", Text},
	{"tar_file", Label}}

// VBVRColumns returns the columns of data/metadata.parquet: the published ones, then ours.
func VBVRColumns() []Column {
	ours := slices.DeleteFunc(RowColumns(), func(c Column) bool {
		return slices.Contains([]string{"generator", "id", "prompt", "metadata"}, c.Name)
	})
	return slices.Concat(vbvrColumns, ours)
}

func (vbvr) Finish(ctx context.Context, _ *Plan, out Output) error {
	columns := VBVRColumns()
	return out.Create(ctx, "data/metadata.parquet", 0, func(w io.Writer) error {
		return WriteTable(w, columns, func(yield func([]any, error) bool) {
			n := 0
			for r, err := range out.Rows(ctx) {
				if err != nil {
					yield(nil, err)
					return
				}
				cells := vbvrCells(r, n)
				for _, c := range columns[len(vbvrColumns):] {
					cells = append(cells, r.Cell(c.Name))
				}
				if !yield(cells, nil) {
					return
				}
				n++
			}
		})
	})
}

// vbvrCells are the cells of the published columns, of the n-th row.
func vbvrCells(r *Row, n int) []any {
	member := func(f *File) any {
		if f == nil {
			return nil
		}
		return sampleFolder(r) + f.Name
	}
	return []any{n, r.Generator, r.Domain + "_task", r.ID, r.Prompt, r.Metadata, member(r.File("first_frame.png")),
		member(r.File("final_frame.png")), member(r.Video()), tarFile(r.Generator)}
}
