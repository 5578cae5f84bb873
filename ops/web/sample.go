package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// neighboursIn is how long a page waits for a search that is not complete: until then it does not know its neighbours.
const neighboursIn = 2 * time.Second

// sampleData is what the page of a sample shows.
type sampleData struct {
	sampleAt
	Sample  store.ReceiptSample
	Receipt *store.Receipt
	First   string // addresses; "" if there is none
	Final   string
	playable
	Media     sample.Media // of the video
	Name      string       // of the video's file
	Frames    []int        // of a strip, from 1
	Way       string       // to have the video re-encoded; "" if nothing is missing for that
	Prompt    string
	Rubric    string
	Metadata  string // indented
	Files     []fileData
	Size      int64
	Took      float64
	Flag      *string // the reason
	Before    string  // addresses of the neighbours
	After     string
	Grid      string // address of the grid
	Here      string // address of this page
	Reproduce string // command
	Note      string // about the texts
	Hints     []inspect.Hint
}

type fileData struct {
	sample.File
	To string // address
}

func (s *Server) samplePage(w http.ResponseWriter, r *http.Request, d *browsed) error {
	at, err := readAt(r.PathValue("generator"), r.PathValue("index"))
	if err != nil {
		return err
	}
	found, err := s.found(r, d, has(at))
	for until := time.Now().Add(neighboursIn); err == nil && !found.plain && !found.Complete && time.Now().Before(until); {
		time.Sleep(recomputed)
		found, err = s.found(r, d, has(at))
	}
	if err != nil {
		return err
	}
	c, err := d.sample(r.Context(), found.geometry, at)
	if err != nil {
		return err
	}
	data := &sampleData{sampleAt: at, Sample: c.sample, Receipt: c.receipt, Size: c.size(), Took: took(c.receipt),
		First: c.image("first_frame.png"), Final: c.image("final_frame.png"),
		Reproduce: s.command(d, "reproduce", at.Generator, fmt.Sprint(at.Index))}
	for i := range c.sample.Files {
		data.Files = append(data.Files, fileData{c.sample.Files[i], c.media(&c.sample.Files[i])})
	}
	if f := c.video(); f != nil {
		data.Media, data.Name = f.Media, f.Name
		if !inspect.Plays(f.Name, f.Media) {
			if err := s.encoder.await(r.Context()); err != nil {
				data.Way = describe(err).Way
				_ = s.decoder.await(r.Context()) // so it is known whether there is a strip
			}
		}
		data.playable = s.playable(c, f)
		for _, n := range stripOf(f.Media.Frames) {
			data.Frames = append(data.Frames, n+1)
		}
	}
	for name, to := range map[string]*string{"prompt.txt": &data.Prompt, "rubric.txt": &data.Rubric,
		"metadata.json": &data.Metadata} {
		if *to, err = s.text(r.Context(), c, name); err != nil {
			p := describe(err)
			data.Note = strings.TrimSpace(p.Error + " " + p.Way)
		}
	}
	data.Hints = d.index.hints(c)
	data.Metadata = indented(data.Metadata)
	flags, err := d.readFlags(r.Context())
	if err != nil {
		return err
	}
	if reason, ok := flags.open[at]; ok {
		data.Flag = &reason
	}
	q, err := readSearch(r)
	if err != nil {
		return err
	}
	values := q.values()
	values.Set("dataset", r.FormValue("dataset"))
	before, after := neighbours(found, at)
	if before != nil {
		data.Before = query(samplePath(*before), values)
	}
	if after != nil {
		data.After = query(samplePath(*after), values)
	}
	data.Here = query(samplePath(at), values)
	values.Set("at", fmt.Sprintf("%s:%d", at.Generator, at.Index))
	data.Grid = query("/samples", values)
	return s.show(w, r, d, "sample.html", view{Title: c.sample.ID, Path: "/samples", Data: data})
}

// indented is JSON for people, or the text as it is if it is none.
func indented(text string) string {
	var pretty bytes.Buffer
	if json.Indent(&pretty, []byte(text), "", "  ") != nil {
		return text
	}
	return pretty.String()
}

// distinct sorts a list and leaves out what is there twice.
func distinct(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}
