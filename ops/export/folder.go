package export

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"iter"
	"math"
	"strconv"
	"strings"
)

// folderBytes is how much a part of folders has: an interrupted export writes it again, and holds the names in memory.
const folderBytes = 128 << 20

// folders writes folders and files: questions/<domain>_task/<id>/. Where two generators have the same domain, their
// level is kept: questions/<generator>/<domain>_task/<id>/. With several splits, each is a folder below questions/.
type folders struct {
	lists    bool // those of the format manifest, too
	split    bool
	collides map[string]bool // domains
}

// Folder returns the format folder.
func Folder() Format { return &folders{} }

// Manifest returns the format manifest.
func Manifest() Format { return &folders{lists: true} }

func (f *folders) Name() string {
	if f.lists {
		return "manifest"
	}
	return "folder"
}

func (f *folders) Cut(int64) Cut { return Cut{Bytes: folderBytes, Rows: f.lists} }

func (f *folders) Check(p *Plan) error {
	f.split, f.collides = len(p.Splits) > 1, map[string]bool{}
	seen := map[string]bool{}
	for _, g := range p.Generators {
		for _, domain := range g.Domains {
			f.collides[domain] = seen[domain]
			seen[domain] = true
		}
	}
	for _, g := range p.Generators {
		if domain, ok := strings.CutSuffix(g.Name, "_task"); ok && seen[domain] {
			return fmt.Errorf("the generator %s has the name of a domain's folder", g.Name)
		}
	}
	return nil
}

func (f *folders) sample(r *Row) string {
	split, generator := "", ""
	if f.split {
		split = r.Split + "/"
	}
	if f.collides[r.Domain] {
		generator = r.Generator + "/"
	}
	return fmt.Sprintf("questions/%s%s%s_task/%s/", split, generator, r.Domain, r.ID)
}

func (f *folders) Part(ctx context.Context, _ Part, rows iter.Seq2[*Row, error], out *Output) error {
	for r, err := range rows {
		if err != nil {
			return err
		}
		folder := f.sample(r)
		for i := range r.Files {
			if err := out.Copy(ctx, folder+r.Files[i].Name, &r.Files[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *folders) Finish(ctx context.Context, p *Plan, out *Output) error {
	if !f.lists {
		return nil
	}
	return f.writeLists(ctx, p, out)
}

// Lists of the format manifest, for each split in manifests/<split>/. Paths in them are relative to the export.
//
//	metadata.csv, metadata.jsonl  video, input_image, prompt, frame_rate
//	clips.json                    a list of clip_path and text_annot
//	dataset.json                  a list of tables of video, image and prompt, with what their
//	                              videos have in common; <generator>.parquet are the tables

// listed is a sample of metadata.jsonl. A sample without a video is in no list.
type listed struct {
	Video      string  `json:"video"`
	InputImage string  `json:"input_image"`
	Prompt     string  `json:"prompt"`
	FrameRate  float64 `json:"frame_rate,omitempty"`
}

type clip struct {
	Path string `json:"clip_path"`
	Text string `json:"text_annot"`
}

// table is an entry of dataset.json. What is not known, or not the same for all, is left to the loader.
type table struct {
	Data   string `json:"data_path"`
	Root   string `json:"root"`
	Frames int    `json:"num_frames,omitempty"` // 4n + 1, at most those of the shortest video
	Height int    `json:"height,omitempty"`     // a multiple of 16
	Width  int    `json:"width,omitempty"`
	FPS    int    `json:"fps,omitempty"` // rounded
}

func (f *folders) writeLists(ctx context.Context, p *Plan, out *Output) error {
	for _, split := range p.Splits {
		dir := "manifests/" + split + "/"
		err := out.Create(ctx, dir+"metadata.csv", 0, func(asCSV io.Writer) error {
			return out.Create(ctx, dir+"metadata.jsonl", 0, func(asLines io.Writer) error {
				return out.Create(ctx, dir+"clips.json", 0, func(asClips io.Writer) error {
					return f.writeRows(f.rows(ctx, split, out), asCSV, asLines, asClips)
				})
			})
		})
		if err != nil {
			return err
		}
		if err := f.writeTables(ctx, split, dir, out); err != nil {
			return err
		}
	}
	return nil
}

// rows yields those of a split that have a video.
func (f *folders) rows(ctx context.Context, split string, out *Output) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		for r, err := range out.Rows(ctx) {
			if err == nil && (r.Split != split || r.Video() == nil) {
				continue
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// writeRows writes the lists that have a line for each sample.
func (f *folders) writeRows(rows iter.Seq2[*Row, error], asCSV, asLines, asClips io.Writer) error {
	table := csv.NewWriter(asCSV)
	lines := encoder(asLines)
	if err := table.Write([]string{"video", "input_image", "prompt", "frame_rate"}); err != nil {
		return err
	}
	start, between := "[", "\n" // of clips.json
	for r, err := range rows {
		if err != nil {
			return err
		}
		l := listed{Video: f.sample(r) + r.Video().Name, InputImage: f.sample(r) + "first_frame.png", Prompt: r.Prompt}
		rate := ""
		if m := r.Video().Media; m != nil && m.FPS > 0 {
			l.FrameRate, rate = m.FPS, strconv.FormatFloat(m.FPS, 'f', -1, 64)
		}
		_, failed := io.WriteString(asClips, start+between)
		err := cmp.Or(failed, encoder(asClips).Encode(clip{l.Video, l.Prompt}), lines.Encode(l),
			table.Write([]string{l.Video, l.InputImage, l.Prompt, rate}))
		if err != nil {
			return err
		}
		start, between = "", ","
	}
	_, err := io.WriteString(asClips, start+"]\n")
	table.Flush()
	return cmp.Or(err, table.Error())
}

var tableColumns = []Column{{"video", Text}, {"prompt", Text}, {"image", Text}}

// writeTables writes dataset.json and a table for each generator, whose rows follow one another.
func (f *folders) writeTables(ctx context.Context, split, dir string, out *Output) error {
	next, stop := iter.Pull2(f.rows(ctx, split, out))
	defer stop()
	tables := []table{}
	for r, err, ok := next(); ok; {
		if err != nil {
			return err
		}
		of, shared := table{Data: r.Generator + ".parquet", Root: "../.."}, common{}
		generator := r.Generator
		cells := func(yield func([]any, error) bool) {
			for ; ok && err == nil && r.Generator == generator; r, err, ok = next() {
				shared.add(r.Video().Media)
				if !yield([]any{f.sample(r) + r.Video().Name, r.Prompt, f.sample(r) + "first_frame.png"}, nil) {
					return
				}
			}
		}
		if err := out.Create(ctx, dir+of.Data, 0, func(w io.Writer) error {
			return WriteTable(w, tableColumns, cells)
		}); err != nil {
			return err
		}
		shared.fill(&of)
		tables = append(tables, of)
	}
	return out.Create(ctx, dir+"dataset.json", 0, func(w io.Writer) error { return encodeJSON(w, tables) })
}

// common is what the videos of a table have in common.
type common struct {
	n, frames, width, height int // 0: differs, or is not known
	fps                      float64
}

func (c *common) add(m *Media) {
	if m == nil {
		m = &Media{}
	}
	if c.n++; c.n == 1 {
		c.frames, c.width, c.height, c.fps = m.Frames, m.Width, m.Height, m.FPS
		return
	}
	c.frames = min(c.frames, m.Frames)
	if c.width != m.Width || c.height != m.Height {
		c.width, c.height = 0, 0
	}
	if math.Abs(c.fps-m.FPS) > 1e-3 {
		c.fps = 0
	}
}

func (c *common) fill(t *table) {
	if c.frames > 0 {
		t.Frames = (c.frames-1)/4*4 + 1
	}
	t.Width, t.Height, t.FPS = c.width/16*16, c.height/16*16, int(math.Round(c.fps))
	if t.Width == 0 || t.Height == 0 {
		t.Width, t.Height = 0, 0
	}
}
