package web

import (
	"context"
	"crypto/rand"
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/flags"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

const (
	freshFlags   = 10 * time.Second // for which flags that were read are shown: others may have changed them
	lateFlags    = time.Minute      // after which a page waits until they are read again: thousands take seconds
	flagsPerPage = 200
	nameCookie   = "ops-ui-name" // who flags
	doneCookie   = "ops-ui-done" // id of the command that does what a form has done
)

// sampleAt is the place of a sample in a dataset.
type sampleAt struct {
	Generator string
	Index     int
}

type flagsRead struct {
	list []flags.Listed
	open map[sampleAt]string // reasons
}

// readFlags reads the flags of a dataset and their states, unless that was done a moment ago.
func (d *browsed) readFlags(ctx context.Context) (*flagsRead, error) {
	return d.flags.get(ctx, d.background, freshFlags, lateFlags, func(ctx context.Context) (*flagsRead, error) {
		list, err := flags.List(ctx, d.Store)
		if err != nil {
			return nil, err
		}
		f := &flagsRead{open: map[sampleAt]string{}}
		if f.list, err = flags.States(ctx, d.Store, list); err != nil {
			return nil, err
		}
		for _, flag := range f.list {
			if at := (sampleAt{flag.Generator, flag.Index}); flag.State == flags.Open {
				f.open[at] = strings.Trim(f.open[at]+"; "+flag.Reason, "; ")
			}
		}
		return f, nil
	})
}

type flagsData struct {
	Flags                []flags.Listed
	Open, Resolved, Gone int
	First, Until, Total  int    // of the list, the first as 1
	Before, After        string // addresses of other parts of the list
	By                   string
	Planned              int    // samples of the plan that was just made
	Carry                string // command that carries it out
	Plan, Export         string // commands
}

func (s *Server) flagsPage(w http.ResponseWriter, r *http.Request, in *browsed) error {
	f, err := in.readFlags(r.Context())
	if err != nil {
		return err
	}
	d := flagsData{Total: len(f.list), By: flagger(r), Plan: s.command(in, "flags", "plan", "--to", "flagged.json"),
		Export: s.command(in, "export", "--as", "parquet", "--to", "curated", "--without", "flagged")}
	states := map[flags.State]int{}
	for _, flag := range f.list {
		states[flag.State]++
	}
	d.Open, d.Resolved, d.Gone = states[flags.Open], states[flags.Resolved], states[flags.Gone]
	from, err := place(r, "from", 0)
	if err != nil {
		return err
	}
	from = min(from, max(d.Total-1, 0))
	d.First, d.Until = from+1, min(from+flagsPerPage, d.Total)
	d.Flags = f.list[from:d.Until]
	if from > 0 {
		d.Before = in.To("/flags", "from", strconv.Itoa(max(0, from-flagsPerPage)))
	}
	if d.Until < d.Total {
		d.After = in.To("/flags", "from", strconv.Itoa(d.Until))
	}
	if d.Planned, err = place(r, "planned", 0); err != nil {
		return err
	}
	if d.Planned > 0 {
		d.Carry = s.command(in, "repair", "--plan", ui.FromHere(s.planFile(in)), "--overwrite")
	}
	return s.show(w, r, in, "flags.html", view{Title: "Flags", Path: "/flags", Command: s.command(in, "flags", "list"),
		Data: d})
}

func (s *Server) planFile(d *browsed) string {
	return filepath.Join(s.Flags.LocalDir, "flags", task.SafeName(s.Target.Name)+"-"+d.Dataset().String()+".plan.json")
}

// planFlags writes a repair plan of the open flags and goes back to the page, which has the command for it.
func (s *Server) planFlags(w http.ResponseWriter, r *http.Request, d *browsed) error {
	d.flags.forget()
	f, err := d.readFlags(r.Context())
	if err != nil {
		return err
	}
	plan, n := flags.Plan(d.Store, f.list), 0
	for _, g := range plan.Generators {
		n += len(g.Replace)
	}
	if n == 0 {
		return badRequest("no flag is open: there is nothing to replace")
	}
	if err := plan.Write(s.planFile(d)); err != nil {
		return err
	}
	http.Redirect(w, r, d.To("/flags", "planned", strconv.Itoa(n))+"#next", http.StatusSeeOther)
	return nil
}

// flagger is who flags with a request: the name that was chosen in this browser, else this account.
func flagger(r *http.Request) string {
	if c, err := r.Cookie(nameCookie); err == nil {
		if name, err := url.QueryUnescape(c.Value); err == nil && name != "" {
			return ui.Cut(name, 50)
		}
	}
	return flags.Account()
}

func (s *Server) nameFlagger(w http.ResponseWriter, r *http.Request, d *browsed) error {
	http.SetCookie(w, &http.Cookie{Name: nameCookie, Value: url.QueryEscape(ui.Cut(r.FormValue("name"), 50)), Path: "/",
		MaxAge: 365 * 24 * 3600, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	return s.goOn(w, r, d.To("/flags"), "")
}

// changeFlags adds or removes flags by a form of the grid, of a sample or of the list: "sample" (repeated,
// GENERATOR:INDEX), "reason", "do" (add or remove), "dataset", and "back", the address of this server to go on to. Who
// does not accept text/html gets {"flags": N, "command": the command that does the same}.
func (s *Server) changeFlags(w http.ResponseWriter, r *http.Request, d *browsed) error {
	chosen, err := chosenSamples(r)
	if err != nil {
		return err
	}
	reason := strings.TrimSpace(r.FormValue("reason"))
	n, command := 0, ""
	defer d.flags.forget() // what has failed may have changed some
	switch do := r.FormValue("do"); do {
	case "add":
		for _, generator := range slices.Sorted(maps.Keys(chosen)) {
			added, err := flags.Add(r.Context(), d.Store, generator, chosen[generator], reason, flagger(r))
			if absent, ok := errors.AsType[*flags.AbsentError](err); ok {
				text := absent.Error()
				if n > 0 {
					text = fmt.Sprintf("%s of other generators flagged; of %s %s", ui.Plural(n, "sample"), generator, text)
				}
				return badRequest("%s", text)
			}
			if err != nil {
				return err
			}
			n += added
		}
		command = s.flagCommand(d, chosen, "add", "--reason", reason)
	case "remove", "remove resolved":
		var names []string // none is all
		if do == "remove" {
			names = slices.Sorted(maps.Keys(chosen))
		}
		list, err := flags.List(r.Context(), d.Store, names...)
		if err != nil {
			return err
		}
		var gone []flags.Flag
		if do == "remove" {
			for _, name := range names {
				gone = append(gone, flags.Of(list, name, chosen[name])...)
			}
			command = s.flagCommand(d, chosen, "remove")
		} else {
			if gone, err = flags.Closed(r.Context(), d.Store, list); err != nil {
				return err
			}
			command = s.command(d, "flags", "remove", "--resolved")
		}
		n = len(gone)
		if err := flags.Remove(r.Context(), d.Store, gone); err != nil {
			return err
		}
	default:
		return badRequest("do is %.40q, it must be add, remove or remove resolved", do)
	}
	if !wantsPage(r) {
		return answer(w, map[string]any{"flags": n, "command": command})
	}
	return s.goOn(w, r, d.To("/flags"), command)
}

// goOn answers a form: it leads to the address of this server that the form names, or to a page. That shows a command,
// which does what the form has done.
func (s *Server) goOn(w http.ResponseWriter, r *http.Request, back, command string) error {
	if to, err := url.Parse(r.FormValue("back")); err == nil && to.Scheme == "" && to.Host == "" &&
		strings.HasPrefix(to.Path, "/") && !strings.HasPrefix(to.Path, "//") {
		back = to.String()
	}
	if command != "" {
		id := rand.Text()
		s.commands.Store(id, command)
		time.AfterFunc(time.Minute, func() { s.commands.Delete(id) }) // nobody may come for it
		http.SetCookie(w, &http.Cookie{Name: doneCookie, Value: id, Path: "/", MaxAge: 60, HttpOnly: true,
			SameSite: http.SameSiteStrictMode})
	}
	http.Redirect(w, r, back, http.StatusSeeOther)
	return nil
}

// did returns the command that does what a form has done, on the page after it. The cookie has only its id: what
// another site of this host may plant there is shown to nobody.
func (s *Server) did(w http.ResponseWriter, r *http.Request) string {
	c, err := r.Cookie(doneCookie)
	if err != nil {
		return ""
	}
	http.SetCookie(w, &http.Cookie{Name: doneCookie, Path: "/", MaxAge: -1})
	command, _ := s.commands.LoadAndDelete(c.Value)
	text, _ := command.(string)
	return text
}

func chosenSamples(r *http.Request) (map[string][]flags.Sample, error) {
	chosen := map[string][]flags.Sample{}
	for _, text := range r.Form["sample"] {
		at := strings.LastIndexByte(text, ':')
		index, err := strconv.Atoi(text[at+1:])
		if at < 1 || err != nil || index < 0 || task.CheckName(text[:at]) != nil {
			return nil, badRequest("sample is %.60q, it must be GENERATOR:INDEX", text)
		}
		chosen[text[:at]] = append(chosen[text[:at]], flags.Sample{Index: index})
	}
	if len(chosen) == 0 && r.FormValue("do") != "remove resolved" {
		return nil, badRequest("no sample is chosen")
	}
	return chosen, nil
}

func (s *Server) flagCommand(d *browsed, chosen map[string][]flags.Sample, words ...string) string {
	var commands []string
	for _, name := range slices.Sorted(maps.Keys(chosen)) {
		line := append(append([]string{"flags"}, words...), name)
		for _, sample := range chosen[name] {
			line = append(line, sample.String())
		}
		commands = append(commands, s.command(d, line...))
	}
	return strings.Join(commands, " && ")
}

func (s *Server) downloadFlags(w http.ResponseWriter, r *http.Request, d *browsed) error {
	f, err := d.readFlags(r.Context())
	if err != nil {
		return err
	}
	name := "flags-" + d.Dataset().String() + filepath.Ext(r.URL.Path)
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
	if filepath.Ext(name) == ".json" {
		return answer(w, f.list)
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	lines := csv.NewWriter(w)
	_ = lines.Write([]string{"generator", "index", "sample", "state", "by", "time", "reason"})
	for _, f := range f.list {
		_ = lines.Write([]string{f.Generator, strconv.Itoa(f.Index), f.Sample, string(f.State), noFormula(f.By),
			f.Time.Format(time.RFC3339), noFormula(f.Reason)})
	}
	lines.Flush()
	return nil
}

// noFormula is a text that a spreadsheet takes for one, whatever it begins with.
func noFormula(text string) string {
	if text != "" && strings.ContainsAny(text[:1], "=+-@") {
		return "'" + text
	}
	return text
}
