package web

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

//go:embed static templates
var files embed.FS

// functions are those of all templates.
var functions = template.FuncMap{"count": ui.Count, "size": ui.Size, "plural": ui.Plural, "dollars": ui.Dollars,
	"seconds": func(s float64) string { return ui.Span(ui.Seconds(s)) }, "join": strings.Join, "printable": printable,
	"short": ui.Short,
	"last":  func(r task.Range) int { return r.End - 1 }}

// templates are the pages, each with the layout around its "main". Other commands than ops ui do not wait for them.
var templates = sync.OnceValue(func() map[string]*template.Template {
	all := map[string]*template.Template{}
	pages, err := files.ReadDir("templates")
	if err != nil {
		panic(err)
	}
	for _, page := range pages {
		all[page.Name()] = template.Must(template.New("layout.html").Funcs(functions).ParseFS(files,
			"templates/layout.html", "templates/"+page.Name()))
	}
	return all
})

// view is what the layout of a page shows. Data is the page's own.
type view struct {
	Title    string
	Path     string // of its section, as in sections
	Sections []section
	Stack    string
	Dataset  task.Dataset
	Datasets []task.Dataset
	ReadOnly bool
	Command  string // that shows the same in a terminal; may be empty
	Did      string // command that does what a form of the last page has done
	Data     any
	Home     task.Dataset // the dataset of addresses that name none
}

// To is an address of this server with the dataset of the page, and with pairs of a name and a value.
func (v view) To(path string, pairs ...string) string {
	return address(v.Home, v.Dataset, path, pairs...)
}

// to is an address of this server with the dataset, and with pairs of a name and a value.
func (d *browsed) to(path string, pairs ...string) string {
	return address(d.home, d.Dataset(), path, pairs...)
}

// address is one of this server for a dataset.
func address(home, d task.Dataset, path string, pairs ...string) string {
	q := url.Values{}
	if d != home {
		q.Set("dataset", d.String())
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	to := url.URL{Path: path, RawQuery: q.Encode()}
	return to.String()
}

// show answers with a page: the template in a file, with what the layout needs filled in.
func (s *Server) show(w http.ResponseWriter, r *http.Request, d *browsed, file string, v view) (err error) {
	if v.Datasets, err = d.Datasets(r.Context()); err != nil {
		return err
	}
	s.fill(&v)
	v.Did = s.did(w, r)
	v.Dataset = d.Dataset()
	render(w, file, v)
	return nil
}

func (s *Server) fill(v *view) {
	v.Sections, v.Stack, v.ReadOnly, v.Home = s.sections, s.Target.Name, s.ReadOnly, s.Store.Dataset()
}

// render writes a page. The status may have been written.
func render(w http.ResponseWriter, file string, data any) {
	var text bytes.Buffer
	if err := templates()[file].Execute(&text, data); err != nil {
		panic(err) // a template and what it is given do not fit
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(text.Bytes())
}

// answer answers with data as JSON.
func answer(w http.ResponseWriter, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
	return nil
}

// refusal is an error with the status of its answer.
type refusal struct {
	error
	status int
}

func (e *refusal) Unwrap() error { return e.error }

// notFound is the error of what is not there.
func notFound(format string, args ...any) error {
	return &refusal{fmt.Errorf(format, args...), http.StatusNotFound}
}

// badRequest is the error of what cannot be asked for.
func badRequest(format string, args ...any) error {
	return &refusal{fmt.Errorf(format, args...), http.StatusBadRequest}
}

// problem is an error as it is shown.
type problem struct {
	Status int    `json:"-"`
	Error  string `json:"error"`
	Way    string `json:"way,omitempty"` // what to do
}

func describe(err error) problem {
	p := problem{Status: http.StatusInternalServerError, Error: ui.Plain(err)}
	if e, ok := errors.AsType[*refusal](err); ok {
		p.Status = e.status
	} else if errors.Is(err, store.ErrNotFound) {
		p.Status = http.StatusNotFound
	}
	if hint, ok := errors.AsType[*ui.Hint](err); ok {
		p.Way = hint.Way
	}
	return p
}

// fail shows an error: as a page to who reads pages, else as JSON.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody reads it
	}
	p := describe(err)
	if !wantsPage(r) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(p.Status)
		_ = json.NewEncoder(w).Encode(p)
		return
	}
	v := view{Title: http.StatusText(p.Status), Data: p}
	s.fill(&v)
	v.Dataset = s.Store.Dataset()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(p.Status)
	render(w, "error.html", v)
}
