package web

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dlq"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

const (
	deadListed = 1000            // messages of the DLQ that are read for the page
	freshDead  = 5 * time.Second // for which what was read is shown: reading hides messages from others
)

func (s *Server) failuresRoutes() {
	s.page("GET /failures", s.failuresPage)
	s.page("GET /failures/task/{id}", s.failurePage)
	s.page("GET /failures/replay", s.replayPage)
	s.page("POST /failures/replay", s.replayTasks)
	s.page("GET /failures/replay/events", s.replayEvents)
}

// deadRead are the messages of the DLQ as they were read.
type deadRead struct {
	list  []dlq.Message
	total int // messages in the DLQ, by its count
}

// readDead reads the DLQ, once for all who ask at the same time: a message that one reader has is hidden from others.
// What was read before counts only while the DLQ has as many messages.
func (s *Server) readDead(ctx context.Context) (*deadRead, error) {
	depth, err := s.Queue.DLQDepth(ctx)
	if err != nil {
		return nil, err
	}
	read := func(ctx context.Context) (*deadRead, error) {
		d := &deadRead{total: depth.Total()}
		filter := dlq.Filter{Max: deadListed}
		if err := filter.Each(ctx, s.Queue, func(m dlq.Message) error {
			d.list = append(d.list, m)
			return nil
		}); err != nil {
			return nil, err
		}
		slices.SortFunc(d.list, func(a, b dlq.Message) int {
			return cmp.Or(cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.Generator(), b.Generator()),
				first(a)-first(b), a.Sent.Compare(b.Sent))
		})
		return d, nil
	}
	dead, err := s.dead.get(ctx, s.background, freshDead, 0, read)
	if err == nil && dead.total != depth.Total() {
		s.dead.forget()
		dead, err = s.dead.get(ctx, s.background, freshDead, 0, read)
	}
	return dead, err
}

// first is the first sample that a message asks for.
func first(m dlq.Message) int {
	if m.Task == nil {
		return 0
	}
	return m.Task.Range().Start
}

// failuresData is what the page of the failures shows.
type failuresData struct {
	Groups    []deadGroup
	Tasks     []dlq.Message
	Cause     string // the filter
	Generator string
	Total     int // messages in the DLQ
	Read      int
	Hidden    int // messages that another reader has
	Replaying bool
	Replayed  bool // a replay has ended
	Seeds     []choice
}

type deadGroup struct {
	*dlq.Group
	Address string // of its tasks
	Chosen  bool
}

// choice is an entry of a list to choose from.
type choice struct{ Value, Text string }

var seedChoices = []choice{{"", "new seeds if the seeds were to blame"}, {"keep", "the seeds they failed with"},
	{"fresh", "new seeds for all"}}

func (s *Server) failuresPage(w http.ResponseWriter, r *http.Request, in *browsed) error {
	dead, err := s.readDead(r.Context())
	if err != nil {
		return err
	}
	d := failuresData{Cause: r.FormValue("cause"), Generator: r.FormValue("generator"), Total: dead.total,
		Read: len(dead.list), Hidden: min(dead.total, deadListed) - len(dead.list), Seeds: seedChoices}
	if j := s.replayJob(); j != nil {
		d.Replaying, d.Replayed = !j.ended(), j.ended()
	}
	for _, g := range dlq.Groups(dead.list) {
		chosen := string(g.Cause) == d.Cause && g.Generator == d.Generator
		address := in.to("/failures", "cause", string(g.Cause), "generator", g.Generator) + "#tasks"
		d.Groups = append(d.Groups, deadGroup{g, address, chosen})
	}
	command := []string{"dlq", "list"}
	if d.Cause != "" {
		command = append(command, "--cause", d.Cause)
	}
	if d.Generator != "" {
		command = append(command, "--generator", d.Generator)
	}
	for _, m := range dead.list {
		if (d.Cause == "" || string(m.Cause) == d.Cause) && (d.Generator == "" || m.Generator() == d.Generator) {
			d.Tasks = append(d.Tasks, m)
		}
	}
	v := view{Title: "Failures", Path: "/failures", Command: s.stackCommand(command...), Data: d}
	return s.show(w, r, in, "failures.html", v)
}

// failureData is what the page of one task shows.
type failureData struct {
	*dlq.Details
	Deliveries string
	Ended      string // how its process ended
	Seeds      []choice
}

func (s *Server) failurePage(w http.ResponseWriter, r *http.Request, in *browsed) error {
	id := r.PathValue("id")
	found, err := dlq.Find(r.Context(), s.Queue, in.Store, s.Flags, id)
	if err != nil {
		return err
	}
	if found == nil {
		return ui.WithHint(notFound("no message in the DLQ has the id %.100s", id),
			"the list of failures; another reader may have received it, for up to two minutes")
	}
	d := failureData{Details: found, Seeds: seedChoices,
		Deliveries: cmp.Or(found.Text(task.AttributeReceives), "not known")}
	if f := found.Report; f != nil {
		d.Ended = fmt.Sprintf("exit status %d", f.ExitCode)
		if f.Signal != "" {
			d.Ended = "signal: " + f.Signal
		}
		d.Ended += fmt.Sprintf(", after %s and %s of CPU, at most %s of memory", ui.Span(ui.Seconds(f.WallSeconds)),
			ui.Span(ui.Seconds(f.CPUSeconds)), ui.Size(f.PeakRSSBytes))
	}
	title := "Failed task of " + cmp.Or(found.Generator(), "no generator")
	v := view{Title: title, Path: "/failures", Command: s.stackCommand("dlq", "show", found.ID), Data: d}
	return s.show(w, r, in, "failure.html", v)
}

// printable is the end of a program's output without control characters.
func printable(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i := range lines {
		lines[i] = ui.Printable(lines[i])
	}
	return strings.Join(lines, "\n")
}
