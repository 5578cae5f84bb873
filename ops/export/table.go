package export

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"reflect"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
)

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

// String returns what a reader of a card understands.
func (k Kind) String() string {
	return [...]string{"text", "text", "integer", "number", "picture", "video", "files", "hashes of all files"}[k]
}

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
		r.text(cell, 1)
	case int:
		r.add(parquet.Int64Value(int64(cell)), 1)
	case float64:
		r.add(parquet.DoubleValue(cell), 1)
	case Blob:
		r.add(parquet.ByteArrayValue(cell.Bytes), 2)
		r.text(cell.Path, 2)
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
	switch c.Kind {
	case Image, Video, Blobs:
		return 2
	case Hashes:
		return 4
	default:
		return 1
	}
}

func textValue(text string) parquet.Value { return parquet.ByteArrayValue([]byte(text)) }

func (r *tableRow) text(text string, definition int) { r.add(textValue(text), definition) }

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

// list appends the values of the next leaf, which is in a list: null itself (definition 0), empty (1), or with
// elements that may be null (2) and have values that may be (3).
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
