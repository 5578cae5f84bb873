package web

import (
	"cmp"
	"net/http"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
)

func (s *Server) samplesRoutes() {
	s.page("GET /samples", s.samplesPage)
	s.page("GET /sample/{generator}/{index}", s.samplePage)
	s.page("GET /api/view", s.apiView)
	s.page("GET /api/samples", s.apiSamples)
	s.page("GET /api/place", s.apiPlace)
}

// samplesData is what the page of the grid shows.
type samplesData struct {
	Search     map[string]string // the fields of the search
	Filtered   bool
	Generators []generatorTotal
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

type generatorTotal struct {
	Name  string
	Total int
}

func (s *Server) samplesPage(w http.ResponseWriter, r *http.Request, d *browsed) error {
	q, err := readSearch(r)
	if err != nil {
		return err
	}
	g, err := d.look(r.Context(), anything)
	if err != nil {
		return err
	}
	data := samplesData{Search: map[string]string{}, Filtered: !q.plain(), Total: g.total(""), Complete: g.complete,
		Orders: orders, Open: q.run+q.commit+q.split+q.duplicates+q.hint+q.where != "",
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
		data.Generators = append(data.Generators, generatorTotal{e.name, e.total})
		data.Commits = append(data.Commits, g.manifest.Commits(e.name)...)
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
		at.Generator = found.geometry.generators[0].name
	}
	where, there := found.find(at)
	return answer(w, map[string]any{"place": where, "there": there, "generator": at.Generator})
}

// neighbours returns the samples before and after one in a search; nil where there is none.
func neighbours(found *result, at sampleAt) (before, after *sampleAt) {
	here, there := found.find(at)
	if !there {
		return nil, nil
	}
	if here > 0 {
		before = &found.at(here-1, 1)[0]
	}
	if list := found.at(here+1, 1); len(list) > 0 {
		after = &list[0]
	}
	return before, after
}
