package web

import (
	"bytes"
	"cmp"
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

type samplesData struct {
	Search     map[string]string // the fields of the search
	Filtered   bool
	Generators []extent
	Total      int
	Complete   bool // else totals are not known yet
	Runs       []string
	Commits    []string
	Orders     []choice
	Hints      []choice
	Open       bool   // a filter that is folded away is used
	First      string // command that makes the first samples
}

var orders = []choice{{"", "index"}, {"-size", "largest first"}, {"size", "smallest first"},
	{"-length", "longest first"}, {"length", "shortest first"}, {"-took", "slowest first"}, {"took", "fastest first"}}

func (s *Server) samplesPage(w http.ResponseWriter, r *http.Request, d *browsed) error {
	q, err := readSearch(r)
	if err != nil {
		return err
	}
	g, err := d.geometry(r.Context(), anything)
	if err != nil {
		return err
	}
	data := samplesData{Search: map[string]string{}, Filtered: !q.plain(), Generators: g.generators, Total: g.total(""),
		Complete: g.complete, Orders: orders, Open: q.run+q.commit+q.split+q.duplicates+q.hint+q.where != "",
		First: s.command(d, "submit", "--all", "--samples", "20")}
	for _, a := range inspect.Kinds {
		if !a.Deep {
			data.Hints = append(data.Hints, choice{string(a.Kind), a.Text})
		}
	}
	for name, value := range q.fields() {
		data.Search[name] = *value
	}
	for _, e := range g.generators {
		data.Commits = append(data.Commits, g.manifest.Commits(e.Name)...)
	}
	data.Commits = distinct(data.Commits)
	if data.Runs, err = d.Runs(r.Context()); err != nil {
		return err
	}
	data.Runs = data.Runs[:min(len(data.Runs), 50)]
	command := []string{"results", "list"}
	if q.generator != "" {
		command = append(command, "--generator", q.generator)
	}
	return s.show(w, r, d, "samples.html", view{Title: "Samples", Path: "/samples", Command: s.command(d, command...),
		Data: data})
}

// found searches. What enough says of the geometry is waited for.
func (s *Server) found(r *http.Request, d *browsed, enough func(*geometry) bool) (*result, error) {
	q, err := readSearch(r)
	if err != nil {
		return nil, err
	}
	return s.search(r.Context(), d, q, enough)
}

// apiView answers with how much a search has found so far.
func (s *Server) apiView(w http.ResponseWriter, r *http.Request, d *browsed) error {
	found, err := s.found(r, d, anything)
	if err != nil {
		return err
	}
	return answer(w, found)
}

// apiSamples answers with samples of a search, from a place on.
func (s *Server) apiSamples(w http.ResponseWriter, r *http.Request, d *browsed) error {
	from, err := place(r, "from", 0)
	if err != nil {
		return err
	}
	count, err := place(r, "count", 60)
	if err != nil {
		return err
	}
	found, err := s.found(r, d, more(r.FormValue("generator"), from))
	if err != nil {
		return err
	}
	items, err := s.items(r.Context(), d, found.geometry, found.at(from, min(count, pageLimit)))
	if err != nil {
		return err
	}
	return answer(w, map[string]any{"version": found.Version, "total": found.Total, "items": items})
}

// apiPlace answers with where in a search a sample is.
func (s *Server) apiPlace(w http.ResponseWriter, r *http.Request, d *browsed) error {
	index, err := place(r, "index", 0)
	if err != nil {
		return err
	}
	at := sampleAt{cmp.Or(r.FormValue("of"), r.FormValue("generator")), index}
	found, err := s.found(r, d, has(at))
	if err != nil {
		return err
	}
	if at.Generator == "" && len(found.geometry.generators) > 0 {
		at.Generator = found.geometry.generators[0].Name
	}
	where, there := found.find(at)
	return answer(w, map[string]any{"place": where, "there": there, "generator": at.Generator})
}

// neighboursIn is how long a page waits for a search that is not complete: until then it does not know its neighbours.
const neighboursIn = 2 * time.Second

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
	if here, there := found.find(at); there {
		if here > 0 {
			data.Before = query(samplePath(found.at(here-1, 1)[0]), values)
		}
		if list := found.at(here+1, 1); len(list) > 0 {
			data.After = query(samplePath(list[0]), values)
		}
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
