package export

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

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

func (f *parquetFormat) Part(ctx context.Context, p Part, rows iter.Seq2[*Row, error], out *Output) error {
	return out.Create(ctx, p.path("parquet"), p.Bytes, func(w io.Writer) error {
		return WriteTable(w, f.columns, through(rows, f.row))
	})
}

func (*parquetFormat) Finish(context.Context, *Plan, *Output) error { return nil }

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

// rowGroupBytes is what a row group may hold before it is written: a writer holds one in memory, and who reads one
// picture reads a column of it. The hub's viewer refuses more than 286 MiB.
const rowGroupBytes = 32 << 20

// maxRow is how many bytes the files of a row may have: a row is in memory several times while it is written.
const maxRow = 32 << 20

// Kind is the type of a column.
type Kind int

// Kinds, and the Go types of their cells. A nil cell is a null.
const (
	Text   Kind = iota // string
	Label              // string; few of them differ
	Int                // int
	Float              // float64
	Image              // Blob
	Video              // Blob
	Blobs              // []Blob
	Hashes             // []File: names, sizes and hashes
)

// kindFacts are what a reader of a card, the Hugging Face loader and Croissant call a kind. A cell of a list has fields
// in each element.
var kindFacts = [...]struct {
	card, hub, croissant string
	fields               []feature
}{
	Text:  {"text", "string", "sc:Text", nil},
	Label: {"text", "string", "sc:Text", nil},
	Int:   {"integer", "int64", "sc:Integer", nil},
	Float: {"number", "float64", "sc:Float", nil},
	Image: {"picture", "image", "sc:ImageObject", nil},
	Video: {"video", "video", "sc:VideoObject", nil},
	Blobs: {card: "files", fields: []feature{{Name: "bytes", Type: "binary"}, {Name: "path", Type: "string"}}},
	Hashes: {card: "hashes of all files", fields: []feature{{Name: "name", Type: "string"},
		{Name: "original_sha256", Type: "string"}, {Name: "sha256", Type: "string"}, {Name: "size", Type: "int64"}}},
}

// String returns what a reader of a card understands.
func (k Kind) String() string { return kindFacts[k].card }

// Column is a column of a Parquet table, and a feature of the Hugging Face loader.
type Column struct {
	Name string
	Kind Kind
}

// Blob is a file in a cell, as the Hugging Face loader has pictures and videos.
type Blob struct {
	Path  string
	Bytes []byte
}

// WriteTable writes rows as Parquet; a row has a cell for each column. Equal rows give equal bytes. One row group is
// in memory: 32 MiB, or a single row that is larger. A row is not used after the next one was asked for.
func WriteTable(w io.Writer, columns []Column, rows iter.Seq2[[]any, error]) error {
	of := map[string]feature{}
	for _, f := range tableFeatures(columns) {
		of[f.Name] = f
	}
	features, err := json.Marshal(map[string]any{"info": map[string]any{"features": of}})
	if err != nil {
		return err
	}
	options := []parquet.WriterOption{
		tableSchema(columns),
		parquet.Compression(&zstd.Codec{Level: zstd.SpeedDefault, Concurrency: 1}),
		parquet.CreatedBy("vm-dataset-pipeline", "1", "export"),
		parquet.KeyValueMetadata("huggingface", string(features)),
	}
	for _, c := range columns {
		// Bounds would be whole videos, several times over.
		switch c.Kind {
		case Image, Video:
			options = append(options, parquet.SkipPageBounds(c.Name, "bytes"), parquet.SkipPageStatistics(c.Name, "bytes"))
		case Blobs:
			options = append(options, parquet.SkipPageBounds(c.Name, "list", "element", "bytes"),
				parquet.SkipPageStatistics(c.Name, "list", "element", "bytes"))
		default:
		}
	}
	out := parquet.NewWriter(w, options...)
	pending := 0
	line := tableRow{}
	for row, err := range rows {
		if err != nil {
			return err
		}
		if err := line.set(columns, row); err != nil {
			return err
		}
		if pending > 0 && pending+line.size > rowGroupBytes {
			if err := out.Flush(); err != nil {
				return err
			}
			pending = 0
		}
		if _, err := out.WriteRows([]parquet.Row{line.values}); err != nil {
			return err
		}
		pending += line.size
	}
	return out.Close()
}

// node returns the column's type. Everything may be null, because the Hugging Face loader has it so.
func (c Column) node() parquet.Node {
	text := parquet.Optional(parquet.String())
	blob := parquet.Optional(parquet.Group{"path": text, "bytes": parquet.Optional(parquet.Encoded(
		parquet.Compressed(parquet.Leaf(parquet.ByteArrayType), &parquet.Uncompressed), &parquet.Plain))})
	switch c.Kind {
	case Label:
		return parquet.Optional(parquet.Encoded(parquet.String(), &parquet.RLEDictionary))
	case Int:
		return parquet.Optional(parquet.Int(64))
	case Float:
		return parquet.Optional(parquet.Leaf(parquet.DoubleType))
	case Image, Video:
		return blob
	case Blobs:
		return parquet.Optional(parquet.List(blob))
	case Hashes:
		return parquet.Optional(parquet.List(parquet.Optional(parquet.Group{
			"name": text, "original_sha256": text, "sha256": text, "size": parquet.Optional(parquet.Int(64))})))
	default:
		return text
	}
}

// tableRow is a row as the Parquet writer takes it: the values of all leaves of the schema, in their order.
type tableRow struct {
	values []parquet.Value
	leaf   int // that add writes next
	size   int // bytes, nearly
}

func (r *tableRow) set(columns []Column, row []any) error {
	if len(row) != len(columns) {
		return fmt.Errorf("a row of %d cells for %d columns", len(row), len(columns))
	}
	*r = tableRow{values: r.values[:0]}
	for i, c := range columns {
		if err := r.cell(c, row[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *tableRow) cell(c Column, cell any) error {
	switch cell := cell.(type) {
	case nil:
		for range c.leaves() {
			r.add(parquet.NullValue(), 0)
		}
	case string:
		r.add(textValue(cell), 1)
	case int:
		r.add(parquet.Int64Value(int64(cell)), 1)
	case float64:
		r.add(parquet.DoubleValue(cell), 1)
	case Blob:
		r.add(parquet.ByteArrayValue(cell.Bytes), 2)
		r.add(textValue(cell.Path), 2)
	case []Blob:
		list(r, cell, func(b Blob) parquet.Value { return parquet.ByteArrayValue(b.Bytes) })
		list(r, cell, func(b Blob) parquet.Value { return textValue(b.Path) })
	case []File:
		list(r, cell, func(f File) parquet.Value { return textValue(f.Name) })
		list(r, cell, func(f File) parquet.Value { return textValue(f.Original) })
		list(r, cell, func(f File) parquet.Value { return textValue(f.SHA256) })
		list(r, cell, func(f File) parquet.Value { return parquet.Int64Value(f.Size) })
	default:
		return fmt.Errorf("column %s cannot hold a %T", c.Name, cell)
	}
	return nil
}

func (c Column) leaves() int {
	if c.Kind == Image || c.Kind == Video {
		return 2
	}
	return max(1, len(kindFacts[c.Kind].fields))
}

func textValue(text string) parquet.Value { return parquet.ByteArrayValue([]byte(text)) }

// add appends the value of the next leaf.
func (r *tableRow) add(v parquet.Value, definition int) {
	r.put(v, 0, definition)
	r.leaf++
}

func (r *tableRow) put(v parquet.Value, repetition, definition int) {
	r.size += 8
	if v.Kind() == parquet.ByteArray {
		r.size += len(v.ByteArray())
	}
	r.values = append(r.values, v.Level(repetition, definition, r.leaf))
}

// list appends the values of the next leaf, which is in a list: null (definition 0), empty (1), or with values (4).
func list[T any](r *tableRow, elements []T, value func(T) parquet.Value) {
	if len(elements) == 0 {
		r.put(parquet.NullValue(), 0, 1)
	}
	for i, e := range elements {
		r.put(value(e), min(i, 1), 4)
	}
	r.leaf++
}

// tableSchema returns a schema whose columns are in the given order. A parquet.Group would sort them.
func tableSchema(columns []Column) *parquet.Schema {
	root := orderedGroup{Group: parquet.Group{}}
	for _, c := range columns {
		node := c.node()
		root.Group[c.Name] = node
		root.fields = append(root.fields, orderedField{Node: node, name: c.Name})
	}
	return parquet.NewSchema("table", root)
}

type orderedGroup struct {
	parquet.Group
	fields []parquet.Field
}

func (g orderedGroup) Fields() []parquet.Field { return g.fields }

type orderedField struct {
	parquet.Node
	name string
}

func (f orderedField) Name() string { return f.name }

// Value is for rows that are Go structs, which ours are not.
func (f orderedField) Value(reflect.Value) reflect.Value { panic("rows are values") }
