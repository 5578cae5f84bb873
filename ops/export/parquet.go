package export

import (
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// parquetFormat has the media in its rows, for datasets, DuckDB, pandas and the hub's viewer. All files have the same
// columns, so that those of several generators are one table: a file that a generator does not write is null.
type parquetFormat struct {
	columns []Column
	names   map[string]string // column of a file; others are in other_files
}

// Parquet returns the format parquet.
func Parquet() Format { return &parquetFormat{} }

func (*parquetFormat) Name() string { return "parquet" }

func (*parquetFormat) Cut(shard int64) Cut {
	return Cut{Bytes: shard, BySplit: true, Memory: 2 * rowGroupBytes}
}

// texts are the files that are columns of text.
var texts = []string{promptFile, rubricFile, metadataFile}

// MediaColumns returns a column for each picture or video that samples have in their own folder, and the column of
// each such file. ground_truth.mp4 and ground_truth.avi of two generators are in one column, ground_truth.
func MediaColumns(p *Plan) ([]Column, map[string]string) {
	files := map[string]Kind{}
	for _, g := range p.Generators {
		for name := range g.Names {
			if kind, ok := mediaKind(name); ok {
				files[name] = kind
			}
		}
	}
	taken := map[string]bool{"other_files": true}
	for _, c := range RowColumns() {
		taken[c.Name] = true
	}
	final := func(text string) string { return strings.ReplaceAll(text, ".", "_") }
	stem := func(name string) string { return final(strings.TrimSuffix(name, path.Ext(name))) }
	// Two files may be in one column if they are of one kind and no sample has both.
	apart := func(name, other string) bool {
		both := func(g *Generator) bool { return g.Names[name] > 0 && g.Names[other] > 0 }
		return name != other && (files[name] != files[other] || slices.ContainsFunc(p.Generators, both))
	}
	columns, names := []Column{}, map[string]string{}
	sorted := slices.Sorted(maps.Keys(files))
	for _, name := range sorted {
		column := stem(name)
		used := func(other string) bool { return names[other] == column && apart(name, other) }
		alike := func(other string) bool { return stem(other) == column && apart(name, other) }
		if taken[column] || slices.ContainsFunc(sorted, used) || slices.ContainsFunc(sorted, alike) {
			column = final(name)
		}
		for taken[column] || slices.ContainsFunc(sorted, used) {
			column += "_"
		}
		names[name] = column
		if c := (Column{column, files[name]}); !slices.Contains(columns, c) {
			columns = append(columns, c)
		}
	}
	// As one reads a task: first what is given, then what is asked for.
	order := func(c Column) int {
		return (slices.Index([]string{"ground_truth", "final_frame", "first_frame"}, c.Name) + 4) % 4
	}
	slices.SortStableFunc(columns, func(a, b Column) int { return order(b) - order(a) })
	return columns, names
}

// mediaKind returns what a file in the sample's own folder is to a loader, by its extension.
func mediaKind(name string) (Kind, bool) {
	if strings.Contains(name, "/") {
		return 0, false
	}
	name = strings.ToLower(name)
	switch path.Ext(name) {
	case ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp":
		return Image, true
	}
	return Video, sample.IsVideo(name)
}

func (f *parquetFormat) Check(p *Plan) error {
	f.columns, f.names = parquetColumns(p)
	return nil
}

// parquetColumns returns the columns of all files, and those of pictures and videos by the names of their files.
func parquetColumns(p *Plan) ([]Column, map[string]string) {
	media, names := MediaColumns(p)
	other := func(name string) bool { return names[name] == "" && !slices.Contains(texts, name) }
	if slices.ContainsFunc(p.Generators, func(g *Generator) bool {
		return slices.ContainsFunc(slices.Collect(maps.Keys(g.Names)), other)
	}) {
		media = append(media, Column{"other_files", Blobs})
	}
	columns := RowColumns()
	return slices.Insert(columns, slices.Index(columns, Column{"prompt", Text})+1, media...), names
}

// path is the name of a part's file, as the hub's loaders have it.
func (p Part) path(extension string) string {
	return fmt.Sprintf("data/%s/%s-%05d-of-%05d.%s", p.Generator, p.Split, p.Number, p.Of, extension)
}

func (f *parquetFormat) Part(ctx context.Context, p Part, rows iter.Seq2[*Row, error], out Output) error {
	return out.Create(ctx, p.path("parquet"), p.Bytes, func(w io.Writer) error {
		return WriteTable(w, f.columns, f.cells(rows))
	})
}

func (*parquetFormat) Finish(context.Context, *Plan, Output) error { return nil }

func (f *parquetFormat) cells(rows iter.Seq2[*Row, error]) iter.Seq2[[]any, error] {
	return func(yield func([]any, error) bool) {
		for row, err := range rows {
			var cells []any
			if err == nil {
				cells, err = f.row(row)
			}
			if !yield(cells, err) || err != nil {
				return
			}
		}
	}
}

func (f *parquetFormat) row(row *Row) ([]any, error) {
	blobs, others, size := map[string]any{}, []Blob{}, int64(0)
	for i := range row.Files {
		file := &row.Files[i]
		if slices.Contains(texts, file.Name) {
			continue
		}
		if size += file.Size; size > maxRow {
			return nil, fmt.Errorf("the files of %s have more than %s, too much for a row of a Parquet file: "+
				"export it with --as webdataset", row.Key, ui.Size(maxRow))
		}
		text, err := file.Bytes()
		if err != nil {
			return nil, err
		}
		blob := Blob{Path: row.Key + "/" + file.Name, Bytes: text}
		if column := f.names[file.Name]; column != "" {
			if blobs[column] != nil {
				return nil, fmt.Errorf("%s: two of its files would be in the column %s", row.Key, column)
			}
			blobs[column] = blob
		} else {
			others = append(others, blob)
		}
	}
	cells := make([]any, 0, len(f.columns))
	for _, c := range f.columns {
		switch c.Kind {
		case Blobs:
			cells = append(cells, others)
		case Image, Video:
			cells = append(cells, blobs[c.Name])
		default:
			cells = append(cells, row.Cell(c.Name))
		}
	}
	return cells, nil
}
