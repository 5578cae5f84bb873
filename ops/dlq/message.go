// Package dlq is about tasks in the dead letter queue: why they are there, and how they are sent again or run by hand.
package dlq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Message is a message of the DLQ and what is known of it.
type Message struct {
	queue.Message
	Cause  task.Cause `json:"cause"`
	Detail string     `json:"detail,omitempty"`
	Task   *task.Task `json:"task,omitempty"` // nil if it is none
}

// Describe reads a message. Any program may have put it there, with attributes of its own.
func Describe(m queue.Message) Message {
	d := Message{Message: m, Cause: task.Cause(m.Text(task.AttributeCause)), Detail: m.Text(task.AttributeDetail)}
	known := slices.Contains(task.Causes(), d.Cause)
	t, err := task.Parse([]byte(m.Body), m.ID)
	switch {
	case err == nil:
		d.Task = &t
	case !known:
		d.Cause, d.Detail = task.InvalidTask, fmt.Sprintf("%s: %s", strings.TrimPrefix(err.Error(), "invalid task: "),
			ui.Cut(m.Body, 60))
		return d
	}
	if !known {
		d.Cause, d.Detail = task.Lost, task.Lost.Policy().Means
	}
	return d
}

// Generator returns the generator of the task, "" if it is none.
func (d Message) Generator() string {
	if d.Task == nil {
		return ""
	}
	return d.Task.Generator
}

// Dataset returns the dataset of the task, "" if it is none.
func (d Message) Dataset() string {
	if d.Task == nil {
		return ""
	}
	return d.Task.Dataset.String()
}

// Samples writes which samples the task asks for, "?" if it is none.
func (d Message) Samples() string {
	if d.Task == nil {
		return "?"
	}
	r := d.Task.Range()
	if d.Task.Indices != nil {
		return fmt.Sprintf("%d of %s", len(d.Task.Indices), dataset.Extent(r))
	}
	return dataset.Extent(r)
}

// Filter chooses messages of the DLQ. An empty field allows all.
type Filter struct {
	IDs        []string // of the message, or of the first message of its task, or the first 8 characters of either
	Causes     []task.Cause
	Generators []string
	Dataset    string
	Since      time.Time
	Max        int // that are chosen; 0 for all
}

// allows reports whether a message is chosen, but for Max.
func (f *Filter) allows(d Message) bool {
	named := func(id string) bool { return names(id, d.ID) || names(id, d.FirstID()) }
	return (len(f.IDs) == 0 || slices.ContainsFunc(f.IDs, named)) &&
		(len(f.Causes) == 0 || slices.Contains(f.Causes, d.Cause)) &&
		(len(f.Generators) == 0 || slices.Contains(f.Generators, d.Generator())) &&
		(f.Dataset == "" || d.Dataset() == f.Dataset) && !d.Sent.Before(f.Since)
}

// Each passes the chosen messages of the DLQ to see. They stay there.
func (f *Filter) Each(ctx context.Context, q *queue.Client, see func(Message) error) error {
	found := 0
	return q.EachDead(ctx, func(m queue.Message) error {
		d := Describe(m)
		if !f.allows(d) {
			return nil
		}
		if err := see(d); err != nil {
			return err
		}
		if found++; found == f.Max {
			return queue.ErrEnough
		}
		return nil
	})
}

// Group is the tasks of one cause, dataset and generator.
type Group struct {
	Cause     task.Cause `json:"cause"`
	Dataset   string     `json:"dataset,omitempty"`
	Generator string     `json:"generator,omitempty"` // none: they are no tasks
	Tasks     int        `json:"tasks"`
	Samples   int        `json:"samples"` // that they ask for
	First     time.Time  `json:"first"`   // when the first came here
	Last      time.Time  `json:"last"`
	Means     string     `json:"means"`
	Remedy    string     `json:"remedy"`
	Example   Message    `json:"example"` // the last one
}

func (g *Group) add(d Message) {
	if g.Tasks++; d.Task != nil {
		g.Samples += d.Task.Count()
	}
	if g.Tasks == 1 || d.Sent.Before(g.First) {
		g.First = d.Sent
	}
	if g.Tasks == 1 || d.Sent.After(g.Last) {
		g.Last, g.Example = d.Sent, d
	}
}

// Groups groups messages, and sorts the groups by cause, generator and dataset.
func Groups(list []Message) []*Group {
	type key struct {
		cause              task.Cause
		dataset, generator string
	}
	groups := map[key]*Group{}
	sorted := []*Group{}
	for _, d := range list {
		k := key{d.Cause, d.Dataset(), d.Generator()}
		if groups[k] == nil {
			groups[k] = &Group{Cause: d.Cause, Dataset: k.dataset, Generator: k.generator, Means: d.Cause.Policy().Means,
				Remedy: d.Cause.Policy().Remedy}
			sorted = append(sorted, groups[k])
		}
		groups[k].add(d)
	}
	order := task.Causes()
	slices.SortFunc(sorted, func(a, b *Group) int {
		return cmp.Or(slices.Index(order, a.Cause)-slices.Index(order, b.Cause),
			strings.Compare(a.Generator, b.Generator), strings.Compare(a.Dataset, b.Dataset))
	})
	return sorted
}

// Details is all that is known of a message.
type Details struct {
	Message
	First  string         `json:"first_message_id"`
	Means  string         `json:"means"`
	Remedy string         `json:"remedy"`
	Report *store.Failure `json:"report,omitempty"` // nil if there is none
	Others []string       `json:"others,omitempty"` // keys of the reports of other chunks of the task
	ByHand string         `json:"by_hand,omitempty"`
	Note   string         `json:"note,omitempty"` // on the command
	More   []string       `json:"more,omitempty"` // ids of further messages with the id: a task may fail in parts
}

// Find returns the message with an id, or whose first message has it, or the first 8 characters; nil if there is none.
func Find(ctx context.Context, q *queue.Client, st *store.Store, f *target.Flags, id string) (*Details, error) {
	var s *Details
	err := q.EachDead(ctx, func(m queue.Message) error {
		if !names(id, m.ID) && !names(id, m.FirstID()) {
			return nil
		}
		if s != nil && m.ID != id {
			s.More = append(s.More, m.ID)
			return nil
		}
		d := Describe(m)
		s = &Details{Message: d, First: d.FirstID(), Means: d.Cause.Policy().Means, Remedy: d.Cause.Policy().Remedy}
		if m.ID == id {
			return queue.ErrEnough
		}
		return nil
	})
	if err != nil || s == nil {
		return nil, err
	}
	if err := s.findReport(ctx, st); err != nil {
		return nil, err
	}
	if s.Report != nil && len(s.Report.Command) > 0 {
		s.ByHand, s.Note = byHand(f, s.Report)
	}
	return s, nil
}

// names reports whether what was typed means an id.
func names(typed, id string) bool {
	return typed == id || len(typed) >= 8 && strings.HasPrefix(id, typed)
}

// findReport reads the report of a message. SQS names none if it moved the message: then the last of its deliveries.
func (s *Details) findReport(ctx context.Context, st *store.Store) error {
	key := s.Text(task.AttributeReport)
	var all []string
	if s.Task != nil {
		for o, err := range st.List(ctx, st.Dataset().FailuresPrefix(s.Task.Generator), "") {
			if err != nil {
				return err
			}
			all = append(all, o.Key)
		}
	}
	for last, i := 0, 0; s.Text(task.AttributeReport) == "" && i < len(all); i++ {
		receives, found := strings.CutPrefix(delivery(all[i]), task.SafeName(s.ID)+"-")
		if n, err := strconv.Atoi(receives); found && err == nil && n > last {
			key, last = all[i], n
		}
	}
	if key == "" {
		return nil
	}
	f, err := st.Failure(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	s.Report = &f
	for _, name := range all {
		if name != key && delivery(name) == delivery(key) {
			s.Others = append(s.Others, name)
		}
	}
	return nil
}

// delivery is the part of a failure report's key that says in which delivery of which message it was written.
func delivery(key string) string { return strings.TrimSuffix(path.Base(key), ".json") }

// byHand returns the shell command that runs the failed chunk again, and a note on it.
func byHand(g *target.Flags, f *store.Failure) (command, note string) {
	found, _ := generator.Discover(g.Generators) // none, if they are not here
	if index, err := generator.LoadIndex(filepath.Join(g.LocalDir, "generators")); err == nil {
		found = append(index.Generators, found...) // those with an environment first
	}
	output := filepath.Join(os.TempDir(), f.Generator+"_"+f.Name)
	argv := slices.Clone(f.Command)
	argv[len(argv)-1] = output
	i := slices.IndexFunc(found, func(g generator.Generator) bool { return g.Name == f.Generator && g.Problem == "" })
	if i < 0 {
		return shell(f.Generator, generator.ByHand(".", f.Seed), argv, output),
			fmt.Sprintf("%s is not in %s: run it in the folder of that generator", f.Generator, g.Generators)
	}
	here := found[i]
	if here.Python == "" {
		note = "it needs the packages of its requirements.txt: ops local up makes an environment with them, " +
			"and then this shows how to use it"
	} else if argv[0] = here.Python; f.Commit != "" && here.Commit != f.Commit {
		note = fmt.Sprintf("it failed at commit %.12s, here is %.12s", f.Commit, here.Commit)
	}
	return shell(here.Dir, generator.ByHand(here.Dir, f.Seed), argv, output), note
}

// shell writes a command in a folder and an environment for a shell.
func shell(dir string, environment, argv []string, output string) string {
	line := "cd " + ui.Quote(dir) + " && mkdir -p " + ui.Quote(output) + " && env"
	for _, word := range slices.Concat(environment, argv) {
		line += " " + ui.Quote(word)
	}
	return line
}
