package export_test

import (
	"bytes"
	"fmt"
	"iter"
	"math/rand/v2"
	"testing"

	"github.com/parquet-go/parquet-go"
	"pgregory.net/rapid"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
)

func tableRows(rows [][]any) iter.Seq2[[]any, error] {
	return func(yield func([]any, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// A table takes little more than its media, has row groups that readers can hold, and is the same bytes each time.
func TestTableSize(t *testing.T) {
	t.Parallel()
	columns := []export.Column{{Name: "key", Kind: export.Text}, {Name: "picture", Kind: export.Image},
		{Name: "video", Kind: export.Video}, {Name: "others", Kind: export.Blobs}}
	random := rand.NewChaCha8([32]byte{})
	var rows [][]any
	media := 0
	for i := range 300 {
		picture, video, other := make([]byte, 20_000), make([]byte, 300_000), make([]byte, 1000)
		for _, b := range [][]byte{picture, video, other} {
			_, _ = random.Read(b)
			media += len(b)
		}
		rows = append(rows, []any{fmt.Sprint(i), export.Blob{Path: "p.png", Bytes: picture},
			export.Blob{Path: "v.mp4", Bytes: video}, []export.Blob{{Path: "a/b", Bytes: other}}})
	}
	var file, again bytes.Buffer
	check(t, export.WriteTable(&file, columns, tableRows(rows)))
	check(t, export.WriteTable(&again, columns, tableRows(rows)))
	if ratio := float64(file.Len()) / float64(media); ratio > 1.05 {
		t.Errorf("%d bytes for %d bytes of media: %.3f", file.Len(), media, ratio)
	}
	if !bytes.Equal(file.Bytes(), again.Bytes()) {
		t.Error("the second time other bytes were written")
	}
	opened, err := parquet.OpenFile(bytes.NewReader(file.Bytes()), int64(file.Len()))
	check(t, err)
	groups := opened.Metadata().RowGroups
	for i, g := range groups {
		if g.TotalByteSize > 33<<20 {
			t.Errorf("row group %d of %d has %d bytes", i, len(groups), g.TotalByteSize)
		}
	}
	if len(groups) != 3 {
		t.Errorf("%d row groups of %d bytes", len(groups), file.Len())
	}
}

// Whatever cells hold comes out again, nulls and empty ones, too.
func TestTable(t *testing.T) {
	t.Parallel()
	columns := []export.Column{{Name: "z", Kind: export.Text}, {Name: "label", Kind: export.Label},
		{Name: "int", Kind: export.Int}, {Name: "float", Kind: export.Float}, {Name: "picture", Kind: export.Image},
		{Name: "others", Kind: export.Blobs}, {Name: "files", Kind: export.Hashes}}
	type blob struct {
		Bytes []byte  `parquet:"bytes,optional"`
		Path  *string `parquet:"path,optional"`
	}
	type file struct {
		Name     *string `parquet:"name,optional"`
		Original *string `parquet:"original_sha256,optional"`
		SHA256   *string `parquet:"sha256,optional"`
		Size     *int64  `parquet:"size,optional"`
	}
	type row struct {
		Z       *string  `parquet:"z,optional"`
		Label   *string  `parquet:"label,optional"`
		Int     *int64   `parquet:"int,optional"`
		Float   *float64 `parquet:"float,optional"`
		Picture *blob    `parquet:"picture,optional"`
		Others  []blob   `parquet:"others,list,optional"`
		Files   []file   `parquet:"files,list,optional"`
	}
	maybe := func(t *rapid.T, cell any) any {
		if rapid.Bool().Draw(t, "null") {
			return nil
		}
		return cell
	}
	text := rapid.StringN(0, 20, 40)
	rapid.Check(t, func(t *rapid.T) {
		var rows [][]any
		for range rapid.IntRange(0, 30).Draw(t, "rows") {
			blobs := []export.Blob{}
			for range rapid.IntRange(0, 3).Draw(t, "blobs") {
				blobs = append(blobs, export.Blob{Path: text.Draw(t, "path"), Bytes: []byte(text.Draw(t, "bytes"))})
			}
			files := []export.File{}
			for range rapid.IntRange(0, 3).Draw(t, "files") {
				files = append(files, export.File{Name: text.Draw(t, "name"), SHA256: text.Draw(t, "hash"),
					Original: text.Draw(t, "original"), Size: rapid.Int64().Draw(t, "size")})
			}
			rows = append(rows, []any{maybe(t, text.Draw(t, "z")), maybe(t, text.Draw(t, "label")),
				maybe(t, rapid.Int().Draw(t, "int")), maybe(t, rapid.Float64().Draw(t, "float")),
				maybe(t, export.Blob{Path: text.Draw(t, "path"), Bytes: []byte(text.Draw(t, "bytes"))}),
				maybe(t, blobs), maybe(t, files)})
		}
		var out bytes.Buffer
		if err := export.WriteTable(&out, columns, tableRows(rows)); err != nil {
			t.Fatal(err)
		}
		read, err := parquet.Read[row](bytes.NewReader(out.Bytes()), int64(out.Len()))
		if err != nil || len(read) != len(rows) {
			t.Fatalf("%d of %d rows: %v", len(read), len(rows), err)
		}
		for i, r := range read {
			got := []any{deref(r.Z), deref(r.Label), deref(r.Int), deref(r.Float), nil, r.Others, r.Files}
			if r.Picture != nil {
				got[4] = fmt.Sprintf("%q %q", r.Picture.Bytes, *r.Picture.Path)
			}
			want := append([]any{}, rows[i]...)
			if b, ok := want[4].(export.Blob); ok {
				want[4] = fmt.Sprintf("%q %q", b.Bytes, b.Path)
			}
			var others, wantOthers, files, wantFiles []string
			for _, b := range r.Others {
				others = append(others, fmt.Sprintf("%q %q", b.Bytes, *b.Path))
			}
			blobs, _ := want[5].([]export.Blob)
			for _, b := range blobs {
				wantOthers = append(wantOthers, fmt.Sprintf("%q %q", b.Bytes, b.Path))
			}
			for _, f := range r.Files {
				files = append(files, fmt.Sprintf("%q %q %q %d", *f.Name, *f.Original, *f.SHA256, *f.Size))
			}
			list, _ := want[6].([]export.File)
			for _, f := range list {
				wantFiles = append(wantFiles, fmt.Sprintf("%q %q %q %d", f.Name, f.Original, f.SHA256, f.Size))
			}
			got[5], got[6], want[5], want[6] = others, files, wantOthers, wantFiles
			if fmt.Sprint(got...) != fmt.Sprint(want...) {
				t.Fatalf("row %d is %v, not %v", i, got, want)
			}
		}
	})
}

func deref[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}
