// Package web is the web application of `ops ui`: samples, the run and its failures in a browser. It reads what the
// commands read, changes things through the same functions, and shows the command that does the same.
package web

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
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
	guard    guard
	mux      *http.ServeMux
	sections []section
	cache    *cache // of files of samples
	encoder  tool[*export.Encoder]
	decoder  tool[*video.Decoder]

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

// section is a part of the application: an entry of the navigation, and its routes.
type section struct {
	Title  string
	Path   string
	routes func(*Server)
}

// sections are in the order of the navigation. Each registers its routes with Server.page.
var sections = []section{
	{"Samples", "/samples", (*Server).samplesRoutes},
	{"Run", "/run", (*Server).runRoutes},
	{"Failures", "/failures", (*Server).failuresRoutes},
	{"Flags", "/flags", (*Server).flagsRoutes},
	{"Compare", "/compare", (*Server).compareRoutes},
}

// New returns the application for a listener. Call Close at the end.
func New(c Config, address net.Addr) (*Server, error) {
	c.Store = c.Store.In(task.Dataset(c.Store.Dataset().String())) // the default one has its name from here on
	s := &Server{Config: c, mux: http.NewServeMux(), sections: sections, datasets: map[string]*browsed{},
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
	s.page("GET /", func(http.ResponseWriter, *http.Request, *browsed) error {
		return notFound("there is no such page")
	})
	s.mediaRoutes()
	for _, part := range sections {
		part.routes(s)
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

// page registers a route that answers with a page or with data of the dataset that a request names. Its error is shown
// as one: see fail.
func (s *Server) page(pattern string, handle func(http.ResponseWriter, *http.Request, *browsed) error) {
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

// dataset parses the form of a request and returns the dataset that it names with ?dataset=.
func (s *Server) dataset(r *http.Request) (*browsed, error) {
	err := r.ParseMultipartForm(32 << 20)
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
