package web

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

const compared = 12 // samples on a page of comparison

type compareData struct {
	A, B        task.Dataset
	Others      []task.Dataset // that may be B
	Generator   string
	Generators  []string // of either
	From        int
	Differences []dataset.Difference // of the manifests
	Pairs       []pairData
	Before      string // addresses
	After       string
}

type pairData struct {
	Index   int
	A, B    sideData
	Verdict string   // equal, differs, or only in one
	Differ  []string // files
}

type sideData struct {
	item
	There bool
	Final string
	To    string // address of its page
	files map[string]string
}

func (s *Server) comparePage(w http.ResponseWriter, r *http.Request, a *browsed) error {
	all, err := a.Datasets(r.Context())
	if err != nil {
		return err
	}
	data := &compareData{A: a.Dataset(), B: task.Dataset(r.FormValue("with"))}
	data.Others = slices.DeleteFunc(all, func(d task.Dataset) bool { return d == data.A })
	if data.B == "" && len(data.Others) > 0 {
		data.B = data.Others[0]
	}
	v := view{Title: "Compare", Path: "/compare", Data: data}
	if data.B == "" {
		return s.show(w, r, a, "compare.html", v)
	}
	if !slices.Contains(data.Others, data.B) {
		return notFound("there is no dataset %.100q to compare with", data.B)
	}
	if data.From, err = place(r, "from", 0); err != nil {
		return err
	}
	b := s.browsed(a.In(data.B))
	ga, err := a.geometry(r.Context(), never)
	if err != nil {
		return err
	}
	gb, err := b.geometry(r.Context(), never)
	if err != nil {
		return err
	}
	data.Differences = dataset.Differences(&ga.manifest, &gb.manifest)
	for _, e := range slices.Concat(ga.generators, gb.generators) {
		data.Generators = append(data.Generators, e.Name)
	}
	data.Generators = distinct(data.Generators)
	if data.Generator = r.FormValue("generator"); data.Generator == "" && len(data.Generators) > 0 {
		data.Generator = data.Generators[0]
		for _, name := range data.Generators { // one that both have says more
			if ga.total(name) > 0 && gb.total(name) > 0 {
				data.Generator = name
				break
			}
		}
	}
	list := slices.Concat(ga.extent(data.Generator).from(data.From, compared+1),
		gb.extent(data.Generator).from(data.From, compared+1))
	slices.Sort(list)
	list = slices.Compact(list)
	for _, index := range list[:min(len(list), compared)] {
		p, at := pairData{Index: index}, sampleAt{data.Generator, index}
		if p.A, err = s.side(r, a, ga, at); err != nil {
			return err
		}
		if p.B, err = s.side(r, b, gb, at); err != nil {
			return err
		}
		p.judge()
		data.Pairs = append(data.Pairs, p)
	}
	to := func(from int) string {
		return a.To("/compare", "with", data.B.String(), "generator", data.Generator, "from", fmt.Sprint(from))
	}
	if data.From > 0 {
		data.Before = to(max(0, data.From-compared))
	}
	if len(list) > compared {
		data.After = to(list[compared])
	}
	v.Command = s.stackCommand("dataset", "diff", data.A.String(), data.B.String())
	return s.show(w, r, a, "compare.html", v)
}

func (s *Server) side(r *http.Request, d *browsed, g *geometry, at sampleAt) (sideData, error) {
	c, err := d.sample(r.Context(), g, at)
	switch {
	case err == nil:
	case describe(err).Status == http.StatusNotFound:
		return sideData{}, nil
	case errors.Is(err, store.ErrDamaged):
		return sideData{item: item{Error: describe(err).Error}}, nil
	default:
		return sideData{}, err
	}
	side := sideData{item: s.item(c), There: true, files: map[string]string{}, Final: c.image("final_frame.png"),
		To: d.To(samplePath(at), "generator", at.Generator)}
	for _, f := range c.sample.Files {
		side.files[f.Name] = f.SHA256
	}
	return side, nil
}

// judge compares the files by their hashes.
func (p *pairData) judge() {
	if !p.A.There || !p.B.There {
		p.Verdict = "only in one"
		return
	}
	for _, name := range distinct(slices.AppendSeq(slices.Collect(maps.Keys(p.A.files)), maps.Keys(p.B.files))) {
		if p.A.files[name] != p.B.files[name] {
			p.Differ = append(p.Differ, name)
		}
	}
	p.Verdict = "equal"
	if len(p.Differ) > 0 {
		p.Verdict = "differs"
	}
}

// from returns the first committed indices from one on. There may be no extent.
func (e *extent) from(index, count int) (list []int) {
	if e == nil {
		return nil
	}
	for _, r := range e.ranges {
		for i := max(r.Start, index); i < r.End && len(list) < count; i++ {
			list = append(list, i)
		}
	}
	return list
}
