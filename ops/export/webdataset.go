package export

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// webdataset writes plain tar files that webdataset, the hub's loader and Energon read: the members of a sample follow
// one another, and their names are its key, a dot, and the field. Every sample has the fields json, prompt.txt and
// rubric.txt. The hub's loader takes its schema from the first five samples, so what differs from sample to sample
// (metadata.json) is one string in json, whose own fields are the same everywhere.
type webdataset struct{}

// Webdataset returns the format webdataset.
func Webdataset() Format { return webdataset{} }

func (webdataset) Name() string { return "webdataset" }

func (webdataset) Cut(shard int64) Cut { return Cut{Bytes: shard, BySplit: true} }

func (webdataset) Check(*Plan) error { return nil }

func (webdataset) Finish(context.Context, *Plan, *Output) error { return nil }

func (webdataset) Part(ctx context.Context, p Part, rows iter.Seq2[*Row, error], out *Output) error {
	return writeTar(ctx, p.path("tar"), p.Bytes, through(rows, webMembers), out)
}

// member is a file of a tar file; of webdataset, its name is first the field alone.
type member struct {
	name string
	file *File
}

// writeTar writes a tar file whose bytes depend on names and contents alone.
func writeTar(ctx context.Context, name string, size int64, rows iter.Seq2[[]member, error], out *Output) error {
	return out.Create(ctx, name, size, func(w io.Writer) error {
		archive, buffer := tar.NewWriter(w), make([]byte, 64<<10)
		for members, err := range rows {
			if err != nil {
				return err
			}
			for _, m := range members {
				if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: m.name, Size: m.file.Size, Mode: 0o644,
					ModTime: time.Unix(0, 0)}); err != nil {
					return err
				}
				n, err := io.CopyBuffer(archive, m.file.Open(), buffer)
				if err == nil && n != m.file.Size {
					err = errors.New("a temporary file was cut off")
				}
				if err != nil {
					return err
				}
			}
		}
		return archive.Close()
	})
}

// webMembers returns the members of a row, in the order of their names.
func webMembers(r *Row) ([]member, error) {
	text, err := json.Marshal(describe(r))
	if err != nil {
		return nil, err
	}
	facts := NewFile("json", text, nil)
	list := []member{{"json", &facts}}
	if r.File(rubricFile) == nil {
		none := NewFile(rubricFile, nil, nil)
		list = append(list, member{rubricFile, &none})
	}
	for i := range r.Files {
		if f := &r.Files[i]; f.Name != metadataFile {
			list = append(list, member{WebField(f.Name), f})
		}
	}
	slices.SortFunc(list, func(a, b member) int { return strings.Compare(a.name, b.name) })
	fields := map[string]bool{} // loaders make them lower-case
	for i := range list {
		lower := strings.ToLower(list[i].name)
		if fields[lower] {
			return nil, fmt.Errorf("%s of %s: two of its files would be the field %s", r.ID, r.Generator, lower)
		}
		fields[lower] = true
		list[i].name = r.Key + "." + list[i].name
	}
	return list, nil
}

// WebField is the field of a file in the format webdataset. A loader cuts a member's name at its last slash and the
// next dot, and takes each .json file for a column of the same fields everywhere: a generator's own is text.
func WebField(name string) string {
	name = strings.ReplaceAll(name, "/", "__")
	if path.Ext(name) == ".json" {
		name += ".txt"
	}
	return name
}

// float is a number that JSON has with a dot: a loader takes 16 for an integer, and fails at the 29.97 after it.
type float float64

// MarshalJSON writes the shortest text that reads back as the number.
func (f float) MarshalJSON() ([]byte, error) {
	text := strconv.FormatFloat(float64(f), 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return []byte(text), nil
}

// describe returns what is said of a row beside its files, for its JSON member. No field is ever left out or null.
func describe(r *Row) map[string]any {
	fields := map[string]any{}
	for _, c := range describedColumns() {
		switch v := c.cell(r).(type) {
		case []File:
			files := []map[string]any{}
			for _, f := range v {
				files = append(files, map[string]any{"name": f.Name, "size": f.Size, "sha256": f.SHA256,
					"original_sha256": f.Original})
			}
			fields[c.Name] = files
		case float64:
			fields[c.Name] = float(v)
		case nil:
			fields[c.Name] = map[Kind]any{Text: "", Label: "", Int: 0, Float: float(0)}[c.Kind]
		default:
			fields[c.Name] = v
		}
	}
	return fields
}

// describedColumns are the columns of a row but those that are members of their own.
func describedColumns() []rowColumn {
	return slices.DeleteFunc(slices.Clone(rowColumns), func(c rowColumn) bool {
		return c.Name == "prompt" || c.Name == "rubric"
	})
}

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

func (vbvr) Part(ctx context.Context, p Part, rows iter.Seq2[*Row, error], out *Output) error {
	return writeTar(ctx, tarFile(p.Generator), p.Bytes, through(rows, func(r *Row) (list []member, err error) {
		for i := range r.Files {
			list = append(list, member{sampleFolder(r) + r.Files[i].Name, &r.Files[i]})
		}
		return list, nil
	}), out)
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

func (vbvr) Finish(ctx context.Context, _ *Plan, out *Output) error {
	columns := VBVRColumns()
	return out.Create(ctx, "data/metadata.parquet", 0, func(w io.Writer) error {
		n := -1
		return WriteTable(w, columns, through(out.Rows(ctx), func(r *Row) ([]any, error) {
			n++
			cells := vbvrCells(r, n)
			for _, c := range columns[len(vbvrColumns):] {
				cells = append(cells, r.Cell(c.Name))
			}
			return cells, nil
		}))
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
