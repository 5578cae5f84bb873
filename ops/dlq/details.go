package dlq

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

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

// Find returns the message with an id, which may be that of its first message, or the
// first 8 characters of either. It returns nil if there is none.
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

// findReport reads the failure report of a message. A message that SQS moved itself
// names none, but its deliveries may have written some: the last of those.
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
	found, err := generator.Discover(g.Generators)
	if err != nil {
		found = nil
	}
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
	switch {
	case here.Python == "":
		note = "it needs the packages of its requirements.txt: ops local up makes an environment with them, and then this shows how to use it"
	case f.Commit != "" && here.Commit != f.Commit:
		note = fmt.Sprintf("it failed at commit %.12s, here is %.12s", f.Commit, here.Commit)
	}
	if here.Python != "" {
		argv[0] = here.Python
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
