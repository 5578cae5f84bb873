package web

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
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

type failuresData struct {
	Groups    []*dlq.Group
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

type choice struct{ Value, Text string }

var seedChoices = []choice{{"", "new seeds if the seeds were to blame"}, {"keep", "the seeds they failed with"},
	{"fresh", "new seeds for all"}}

func (s *Server) failuresPage(w http.ResponseWriter, r *http.Request, in *browsed) error {
	dead, err := s.readDead(r.Context())
	if err != nil {
		return err
	}
	d := failuresData{Groups: dlq.Groups(dead.list), Cause: r.FormValue("cause"), Generator: r.FormValue("generator"),
		Total: dead.total, Read: len(dead.list), Hidden: min(dead.total, deadListed) - len(dead.list), Seeds: seedChoices}
	if j := s.replayJob(); j != nil {
		d.Replaying, d.Replayed = !j.ended(), j.ended()
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

const bodiesShown = 50 // tasks of a dry run

type replayForm struct {
	dlq.Replay
	Words  []string // of the command that does the same
	Fields []choice // of the form, to send it again
}

// readReplay reads the form of a replay: "id" (repeated), "cause", "generator", "in" (a dataset), "since", "max",
// "rate", "chunk" and "seeds" (keep, fresh). Without "id", "which" must be "all": nobody sends everything by a form in
// which nothing was chosen.
func (s *Server) readReplay(r *http.Request) (*replayForm, error) {
	f := &replayForm{Words: []string{"dlq", "replay"}, Replay: dlq.Replay{Queue: s.Queue, Store: s.Store,
		Journal: dlq.JournalPath(s.Flags.LocalDir, s.Target.DLQURL, "")}}
	take := func(name, flag string) (value string) {
		if value = strings.TrimSpace(r.FormValue(name)); value != "" {
			f.Words, f.Fields = append(f.Words, flag, value), append(f.Fields, choice{name, value})
		}
		return value
	}
	switch which := r.FormValue("which"); which {
	case "all":
		if cause := task.Cause(take("cause", "--cause")); cause != "" {
			if !slices.Contains(task.Causes(), cause) {
				return nil, badRequest("cause is %.40q, which is none", cause)
			}
			f.Causes = []task.Cause{cause}
		}
		if generator := take("generator", "--generator"); generator != "" {
			f.Generators = []string{generator}
		}
	case "selected":
		for _, id := range r.Form["id"] {
			f.IDs = append(f.IDs, id)
			f.Words, f.Fields = append(f.Words, "--id", id), append(f.Fields, choice{"id", id})
		}
		if len(f.IDs) == 0 {
			return nil, badRequest("no task is selected")
		}
	default:
		return nil, badRequest("which is %.40q, it must be all or selected", which)
	}
	f.Fields = append(f.Fields, choice{"which", r.FormValue("which")})
	var err error
	if f.Dataset = take("in", "--dataset"); f.Dataset != "" && task.CheckName(f.Dataset) != nil {
		return nil, badRequest("dataset is %.40q, which is no name of one", f.Dataset)
	}
	if text := strings.TrimSpace(r.FormValue("since")); text != "" {
		if f.Since, err = ui.ParseMoment(text); err != nil {
			return nil, badRequest("since is %w", err)
		}
		text = f.Since.UTC().Format(time.RFC3339) // the same moment in the dry run and after it
		f.Words, f.Fields = append(f.Words, "--since", text), append(f.Fields, choice{"since", text})
	}
	if text := take("max", "--max"); text != "" {
		if f.Max, err = strconv.Atoi(text); err != nil || f.Max < 1 {
			return nil, badRequest("at most is %.40q, it must be a whole number of at least 1", text)
		}
	}
	if text := take("chunk", "--chunk"); text != "" {
		if f.Chunk, err = strconv.Atoi(text); err != nil || f.Chunk < 1 || f.Chunk > task.MaxSamples {
			return nil, badRequest("samples per process is %.40q, it must be from 1 to %d", text, task.MaxSamples)
		}
	}
	if text := take("rate", "--rate"); text != "" {
		if f.Rate, err = strconv.ParseFloat(text, 64); err != nil || !(f.Rate >= 0.001) {
			return nil, badRequest("tasks a second is %.40q, it must be a number of at least 0.001", text)
		}
	}
	switch seeds := r.FormValue("seeds"); seeds {
	case "":
	case "keep":
		f.KeepSeed, f.Words = true, append(f.Words, "--keep-seed")
	case "fresh":
		f.FreshSeed, f.Words = true, append(f.Words, "--fresh-seed")
	default:
		return nil, badRequest("seeds is %.40q, it must be keep or fresh", seeds)
	}
	f.Fields = append(f.Fields, choice{"seeds", r.FormValue("seeds")})
	return f, nil
}

// replayData is what the page of a replay shows: a dry run, or how far the last replay is.
type replayData struct {
	Dry     *dlq.Result
	Left    []string // what a dry run says of messages that stay
	More    int      // tasks of a dry run that are not shown
	Fields  []choice
	Command string
	Job     *replayJob
}

// replayTasks shows what a replay would send, or with do=send begins it.
func (s *Server) replayTasks(w http.ResponseWriter, r *http.Request, in *browsed) error {
	f, err := s.readReplay(r)
	if err != nil {
		return err
	}
	switch do := r.FormValue("do"); do {
	case "send":
		if err := s.beginReplay(f, in.To("/run")); err != nil {
			return err
		}
		http.Redirect(w, r, in.To("/failures/replay"), http.StatusSeeOther)
		return nil
	case "dry run":
	default:
		return badRequest("do is %.40q, it must be dry run or send", do)
	}
	d := replayData{Fields: f.Fields, Command: s.stackCommand(f.Words...)}
	f.Say = func(format string, args ...any) { d.Left = append(d.Left, fmt.Sprintf(format, args...)) }
	result, err := f.DryRun(r.Context())
	if err != nil {
		return err
	}
	d.More = max(0, len(result.Bodies)-bodiesShown)
	d.Dry = &result
	return s.show(w, r, in, "replay.html", view{Title: "Replay: dry run", Path: "/failures",
		Command: s.stackCommand(append(f.Words, "--dry-run")...), Data: d})
}

// Shown are the first tasks of a dry run.
func (d replayData) Shown() []string { return d.Dry.Bodies[:len(d.Dry.Bodies)-d.More] }

// replayJob is a replay that goes on without its viewers.
type replayJob struct {
	*topic
	command string
	run     string // address of the page to go on with
}

// liveReplay is the part of the page that each step of a replay replaces.
type liveReplay struct {
	Run     string // address
	Sent    int
	Total   int
	Lines   []string // what it says
	Result  *dlq.Result
	Problem string
	Way     string
}

func (j *replayJob) ended() bool {
	e, _ := j.now()
	return e != nil && e.end != ""
}

func (s *Server) replayJob() *replayJob {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replay
}

func (s *Server) beginReplay(f *replayForm, run string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replay != nil && !s.replay.ended() {
		return badRequest("a replay is under way here: wait for its end")
	}
	j := &replayJob{topic: newTopic(), command: s.stackCommand(f.Words...), run: run}
	s.replay = j
	s.jobs.Go(func() { s.runReplay(j, &f.Replay) })
	return nil
}

func (s *Server) runReplay(j *replayJob, r *dlq.Replay) {
	live := liveReplay{Run: j.run}
	shown := time.Time{}
	show := func(end string) {
		shown = time.Now()
		j.publish(event{html: s.part("replay.html", "live", &live), end: end})
	}
	r.Say = func(format string, args ...any) {
		live.Lines = append(live.Lines, fmt.Sprintf(format, args...))
		show("")
	}
	r.Progress = func(_ string, done, total int) {
		if live.Sent, live.Total = done, total; time.Since(shown) > 200*time.Millisecond {
			show("")
		}
	}
	show("")
	result, err := r.Do(s.background)
	s.dead.forget()
	live.Result, live.Sent = &result, result.Sent
	end := "done"
	if err != nil {
		p := describe(err)
		live.Problem, live.Way, end = p.Error, p.Way, "failed"
	}
	show(end)
}

func (s *Server) replayPage(w http.ResponseWriter, r *http.Request, in *browsed) error {
	j := s.replayJob()
	v := view{Title: "Replay", Path: "/failures", Data: replayData{Job: j}}
	if j != nil {
		v.Command = j.command
	}
	return s.show(w, r, in, "replay.html", v)
}

func (s *Server) replayEvents(w http.ResponseWriter, r *http.Request, _ *browsed) error {
	j := s.replayJob()
	if j == nil {
		return notFound("nothing was replayed here yet")
	}
	follow(w, r, j.topic)
	return nil
}
