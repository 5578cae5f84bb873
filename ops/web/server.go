// Package web is the web application of `ops ui`: samples, the run and its failures in a browser. It reads what the
// commands read, changes things through the same functions, and shows the command that does the same.
package web

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/video"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Config is what the application shows and may do.
type Config struct {
	Target   *target.Target // its dataset is the one that is shown first
	Flags    *target.Flags
	Store    *store.Store  // of the target's dataset
	Queue    *queue.Client // queue and DLQ of the target
	ReadOnly bool          // refuses everything that changes the stack

	// Switch has the queue deliver tasks to workers (on) or not, and returns once it is so.
	Switch func(ctx context.Context, on bool) error
	// Paused reports whether tasks are not delivered to workers.
	Paused func(ctx context.Context) (bool, error)
	// Say prints a line for whoever started the server; it is called from several goroutines.
	Say func(format string, args ...any)
}

// Server is the application. Its pages are read by any number of viewers at once.
type Server struct {
	Config
	guard   guard
	mux     *http.ServeMux
	cache   *cache // of files of samples
	encoder tool[*export.Encoder]
	decoder tool[*video.Decoder]

	background context.Context // ends with Close
	end        context.CancelFunc

	mu       sync.Mutex
	datasets map[string]*browsed

	feeds  map[string]*feed
	replay *replayJob

	dead     kept[*deadRead]
	commands sync.Map       // that do what forms have done, by id: see goOn
	jobs     sync.WaitGroup // what goes on without viewers
}

// section is an entry of the navigation.
type section struct{ Title, Path string }

var sections = []section{{"Samples", "/samples"}, {"Run", "/run"}, {"Failures", "/failures"}, {"Flags", "/flags"},
	{"Compare", "/compare"}}

// New returns the application for a listener. Call Close at the end.
func New(c Config, address net.Addr) (*Server, error) {
	c.Store = c.Store.In(task.Dataset(c.Store.Dataset().String())) // the default one has its name from here on
	s := &Server{Config: c, mux: http.NewServeMux(), datasets: map[string]*browsed{},
		feeds: map[string]*feed{}}
	s.background, s.end = context.WithCancel(context.Background())
	s.findTools(c.Flags.LocalDir)
	static, err := fs.Sub(files, "static")
	if err != nil {
		return nil, err
	}
	if s.cache, err = openCache(filepath.Join(c.Flags.LocalDir, "ui"), cacheLimit); err != nil {
		return nil, err
	}
	if s.guard, err = newGuard(address, c.ReadOnly); err != nil {
		return nil, err
	}
	s.mux.Handle("GET /static/", http.StripPrefix("/static/", http.FileServerFS(static)))
	s.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, query("/samples", r.URL.Query()), http.StatusSeeOther)
	})
	for pattern, handle := range map[string]func(http.ResponseWriter, *http.Request, *browsed) error{
		"GET /samples":                                      s.samplesPage,
		"GET /sample/{generator}/{index}":                   s.samplePage,
		"GET /api/view":                                     s.apiView,
		"GET /api/samples":                                  s.apiSamples,
		"GET /api/place":                                    s.apiPlace,
		"GET /media/{generator}/{index}/{file...}":          s.mediaFile,
		"GET /play/{generator}/{index}/{file...}":           s.encodedFile,
		"GET /frame/{number}/{generator}/{index}/{file...}": s.stripFrame,
		"GET /run":                    s.runPage,
		"GET /run/events":             s.runEvents,
		"POST /run/delivery":          s.switchDelivery,
		"GET /failures":               s.failuresPage,
		"GET /failures/task/{id}":     s.failurePage,
		"GET /failures/replay":        s.replayPage,
		"POST /failures/replay":       s.replayTasks,
		"GET /failures/replay/events": s.replayEvents,
		"GET /flags":                  s.flagsPage,
		"POST /flags":                 s.changeFlags,
		"POST /flags/name":            s.nameFlagger,
		"POST /flags/plan":            s.planFlags,
		"GET /flags.json":             s.downloadFlags,
		"GET /flags.csv":              s.downloadFlags,
		"GET /compare":                s.comparePage,
		"GET /": func(http.ResponseWriter, *http.Request, *browsed) error {
			return notFound("there is no such page")
		},
	} {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			d, err := s.dataset(r)
			if err == nil {
				err = handle(w, r, d)
			}
			if err != nil {
				s.fail(w, r, err)
			}
		})
	}
	return s, nil
}

// Close ends what the server has started.
func (s *Server) Close() {
	s.end() // first: a video that is being encoded would be waited for
	s.encoder.end()
	s.decoder.end()
	s.jobs.Wait()
}

// Address is what to open in a browser: it has the token. If the server listens on all addresses of this machine, it is
// one for other machines, which AddressHere is not.
func (s *Server) Address() string { return s.guard.address(s.guard.network, s.guard.token) }

// AddressHere is what to open in a browser of this machine.
func (s *Server) AddressHere() string { return s.guard.address(s.guard.here, s.guard.token) }

// AddressOnce is AddressHere with a token that is good for one request. It is for the arguments of a program, which
// other users of the machine can read.
func (s *Server) AddressOnce() string {
	token := rand.Text()
	s.guard.once.Store(token, true)
	return s.guard.address(s.guard.here, token)
}

// Handler answers requests. Every one passes the guard.
func (s *Server) Handler() http.Handler { return s.guard.protect(s.mux) }

// Serve answers requests until the context ends.
func (s *Server) Serve(ctx context.Context, on net.Listener) error {
	// Events go on as long as their page is open, so an answer has no deadline of its own; a request's context ends with
	// the server.
	base, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return base }}
	stop := context.AfterFunc(ctx, func() {
		last, done := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer done()
		if h.Shutdown(last) != nil {
			_ = h.Close()
		}
	})
	defer stop()
	if err := h.Serve(on); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Listen listens on an address, of loopback if it names no host.
func Listen(address string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("the address %q must be HOST:PORT, such as 127.0.0.1:8080: %w", address, err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.Listen("tcp", net.JoinHostPort(host, port))
}

// dataset parses the form of a request and returns the dataset that it names with ?dataset=.
func (s *Server) dataset(r *http.Request) (*browsed, error) {
	err := r.ParseForm()
	if err == nil {
		err = r.ParseMultipartForm(32 << 20)
	}
	if r.Method == http.MethodPost && err != nil && !errors.Is(err, http.ErrNotMultipart) {
		return nil, badRequest("%w", err)
	}
	name := r.FormValue("dataset")
	if name == "" {
		return s.browsed(s.Store), nil
	}
	if err := task.CheckName(name); err != nil {
		return nil, badRequest("dataset %v", err)
	}
	return s.browsed(s.Store.In(task.Dataset(name))), nil
}

// command returns a command line that reaches the same stack and dataset: command(d, "repair", "--plan", "p.json") is
// ops --stack local repair --plan p.json --dataset v2.
func (s *Server) command(d *browsed, words ...string) string {
	t := *s.Target
	t.Dataset = d.Dataset()
	return s.stackCommand(words...) + t.In()
}

// stackCommand is a command line for the stack that has nothing to do with a dataset.
func (s *Server) stackCommand(words ...string) string {
	line := "ops" + s.Target.Flags()
	for _, word := range words {
		line += " " + ui.Quote(word)
	}
	return line
}

//go:embed static templates
var files embed.FS

var functions = template.FuncMap{"count": ui.Count, "size": ui.Size, "plural": ui.Plural, "dollars": ui.Dollars,
	"seconds": func(s float64) string { return ui.Span(ui.Seconds(s)) }, "join": strings.Join, "printable": printable,
	"short": ui.Short, "last": func(r task.Range) int { return r.End - 1 }}

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
	Datasets []task.Dataset
	ReadOnly bool
	Command  string // that shows the same in a terminal; may be empty
	Did      string // command that does what a form of the last page has done
	Data     any
	*browsed // the dataset
}

// To is an address of this server with the dataset, and with pairs of a name and a value.
func (d *browsed) To(path string, pairs ...string) string {
	q := url.Values{}
	if d.Dataset() != d.Home {
		q.Set("dataset", d.Dataset().String())
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return query(path, q)
}

// show answers with a page: the template in a file, with what the layout needs filled in.
func (s *Server) show(w http.ResponseWriter, r *http.Request, d *browsed, file string, v view) (err error) {
	if v.Datasets, err = d.Datasets(r.Context()); err != nil {
		return err
	}
	v.Did = s.did(w, r)
	s.render(w, d, file, v)
	return nil
}

// render writes a page. The status may have been written.
func (s *Server) render(w http.ResponseWriter, d *browsed, file string, v view) {
	v.Sections, v.Stack, v.ReadOnly, v.browsed = sections, s.Target.Name, s.ReadOnly, d
	var text bytes.Buffer
	if err := templates()[file].Execute(&text, v); err != nil {
		panic(err) // a template and what it is given do not fit
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(text.Bytes())
}

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

func notFound(format string, args ...any) error {
	return &refusal{fmt.Errorf(format, args...), http.StatusNotFound}
}

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
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(p.Status)
	s.render(w, s.browsed(s.Store), "error.html", view{Title: http.StatusText(p.Status), Data: p})
}
