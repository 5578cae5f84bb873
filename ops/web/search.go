package web

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
)

const (
	recomputed  = 100 * time.Millisecond // how long a result is as good as a new one, or 10 times what it took
	keptResults = 12
)

// search is what the grid is asked to show, in which order.
type search struct {
	generator  string // "" is all
	run        string // they begin so
	commit     string
	splits     string // rule of export --split
	split      string // name in that rule
	duplicates string // "only" or "without"
	flagged    string // "only" or "without"
	hint       string // "any", or the key of one
	where      string // of export --where
	sort       string // size, length or took; with "-" in front the largest first
	rule       *export.Splits
	hints      inspect.Set
}

// fields are the values of a search by their names in an address.
func (q *search) fields() map[string]*string {
	return map[string]*string{"generator": &q.generator, "run": &q.run, "commit": &q.commit, "splits": &q.splits,
		"split": &q.split, "duplicates": &q.duplicates, "flagged": &q.flagged, "hint": &q.hint, "where": &q.where,
		"sort": &q.sort}
}

func readSearch(r *http.Request) (*search, error) {
	q := &search{}
	for name, value := range q.fields() {
		*value = strings.TrimSpace(r.FormValue(name))
	}
	for _, c := range []struct{ name, is string }{{"duplicates", q.duplicates}, {"flagged", q.flagged}} {
		if !slices.Contains([]string{"", "only", "without"}, c.is) {
			return nil, badRequest("%s is %.40q, it must be only or without", c.name, c.is)
		}
	}
	if !slices.Contains([]string{"", "size", "length", "took"}, strings.TrimPrefix(q.sort, "-")) {
		return nil, badRequest("sort is %.40q, it must be size, length or took, or one of them after '-'", q.sort)
	}
	var err error
	if q.hints, err = parseHints(q.hint); err != nil {
		return nil, err
	}
	if q.split == "" {
		return q, nil
	}
	if q.rule, err = export.ParseSplits(q.splits); err != nil {
		return nil, badRequest("the rule of the splits: %w", err)
	}
	if !slices.Contains(q.rule.Names(), q.split) {
		return nil, badRequest("the rule %q has no split %.60q: it has %s", q.splits, q.split,
			strings.Join(q.rule.Names(), ", "))
	}
	return q, nil
}

func (q *search) values() url.Values {
	v := url.Values{}
	for name, value := range q.fields() {
		v.Set(name, *value)
	}
	return v
}

// plain reports whether the listing alone answers the search.
func (q *search) plain() bool {
	return q.run+q.commit+q.split+q.duplicates+q.flagged+q.hint+q.where+q.sort == ""
}

// result is what a search has found so far. It never changes.
type result struct {
	list      []sampleRef // nil of a plain search
	plain     bool
	generator string
	geometry  *geometry

	Total     int    `json:"total"`
	Version   string `json:"version"` // another one for other samples
	Complete  bool   `json:"complete"`
	Reading   string `json:"reading,omitempty"` // what is being read: "keys", "receipts" or "metadata"
	Read      int    `json:"read"`
	Of        int    `json:"of"`
	Undecided int    `json:"undecided,omitempty"` // samples without what the condition asks for
	Problem   string `json:"problem,omitempty"`
	made      time.Time
	took      time.Duration
}

// sampleRef is a sample in 8 bytes: the place of its generator and its index.
type sampleRef struct {
	generator int32
	index     int32
}

// at returns samples of the result from a place on.
func (r *result) at(from, count int) []sampleAt {
	if r.plain {
		return r.geometry.at(r.generator, from, count)
	}
	var list []sampleAt
	for _, ref := range r.list[min(from, len(r.list)):min(from+count, len(r.list))] {
		list = append(list, r.sample(ref))
	}
	return list
}

func (r *result) sample(ref sampleRef) sampleAt {
	return sampleAt{r.geometry.generators[ref.generator].Name, int(ref.index)}
}

// find returns the place of a sample and whether it is there. If it is not, it is the place of the next one in a result
// that has the order of the dataset.
func (r *result) find(at sampleAt) (place int, there bool) {
	if r.plain {
		return r.geometry.find(r.generator, at)
	}
	next := -1
	for i, ref := range r.list {
		s := r.sample(ref)
		if s == at {
			return i, true
		}
		if next < 0 && s.Generator == at.Generator && s.Index > at.Index {
			next = i
		}
	}
	return max(0, next), false
}

// search answers a search with what is known now. Who asks for the same at the same time gets the same.
func (s *Server) search(ctx context.Context, d *browsed, q *search, enough func(*geometry) bool) (*result, error) {
	g, err := d.geometry(ctx, enough)
	if err != nil {
		return nil, err
	}
	if q.generator != "" && g.extent(q.generator) == nil {
		return nil, notFound("dataset %s has no generator %.100q", d.Dataset(), q.generator)
	}
	r := &result{geometry: g, generator: q.generator, plain: q.plain(), Complete: g.complete, made: time.Now(),
		Problem: g.problem}
	if !g.complete {
		r.Reading = "keys"
	}
	if r.plain {
		r.Total, r.Version = g.total(q.generator), fmt.Sprint(g.version)
		return r, nil
	}
	if q.where != "" { // what is wrong with it is said at once
		if _, err := d.index.condition(q.where); err != nil {
			return nil, err
		}
	}
	if !g.complete { // a filter reads what was listed
		return r, nil
	}
	key := q.values().Encode()
	return share(ctx, d, "search "+key, func(ctx context.Context) (*result, error) {
		if old := d.index.result(key); old != nil && (time.Since(old.made) < max(recomputed, 10*old.took) ||
			old.Complete && old.Problem == "" && old.geometry.version == g.version && q.flagged == "") {
			return old, nil
		}
		if err := s.filter(ctx, d, q, r); err != nil {
			return nil, err
		}
		d.index.keep(key, r)
		return r, nil
	})
}

func (s *Server) filter(ctx context.Context, d *browsed, q *search, r *result) error {
	flags, err := d.readFlags(ctx)
	if err != nil {
		return err
	}
	var where *condition
	if q.where != "" {
		if where, err = d.index.condition(q.where); err != nil {
			return err
		}
	}
	var names []string
	for _, e := range r.geometry.of(q.generator) {
		names = append(names, e.Name)
	}
	r.Read, r.Of = d.index.want(r.geometry, names)
	if r.Read < r.Of {
		r.Complete, r.Reading = false, "receipts"
	}
	hits := d.index.hits(q, r, flags.open, where)
	if q.sort != "" {
		sign := 1
		if strings.HasPrefix(q.sort, "-") {
			sign = -1
		}
		slices.SortStableFunc(hits, func(a, b hit) int { return sign * cmp.Compare(a.by, b.by) })
	}
	h := fnv.New64a()
	r.list = make([]sampleRef, len(hits))
	for i, hit := range hits {
		r.list[i] = hit.sampleRef
		var text [8]byte
		binary.LittleEndian.PutUint32(text[:], uint32(hit.generator))
		binary.LittleEndian.PutUint32(text[4:], uint32(hit.index))
		_, _ = h.Write(text[:])
	}
	r.took = time.Since(r.made)
	r.Total, r.Version = len(hits), fmt.Sprintf("%d-%x", r.geometry.version, h.Sum64())
	return nil
}

// hit is a sample that a search has found, and what it is sorted by.
type hit struct {
	sampleRef
	by float32
}

// hits returns what a search finds among what was read, and has read what the condition needs.
func (x *index) hits(q *search, r *result, flagged map[sampleAt]string, where *condition) (hits []hit) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r.Problem = cmp.Or(r.Problem, x.problem)
	var unread []cellAt
	cells := 0
	if where != nil {
		where.mu.Lock()
		defer where.mu.Unlock()
		r.Problem = cmp.Or(r.Problem, where.problem, where.failed)
	}
	for n, e := range r.geometry.generators {
		of := x.generators[e.Name]
		if of == nil || q.generator != "" && e.Name != q.generator {
			continue
		}
		var all counted
		if q.duplicates+q.hint != "" {
			all = *of.count()
		}
		if all.rule == nil || r.Read < r.Of { // what nearly all have is not known
			all.rule = inspect.RuleOf(nil)
		}
		for _, start := range slices.Sorted(maps.Keys(of.cells)) {
			cell, answered := of.cells[start], map[int32]bool(nil)
			wanted := slices.DeleteFunc(slices.Clone(cell.records), func(rec record) bool {
				_, flag := flagged[sampleAt{e.Name, int(rec.Index)}]
				return !strings.HasPrefix(rec.run, q.run) || !strings.HasPrefix(rec.commit, q.commit) ||
					q.duplicates != "" && all.duplicates[rec.Index] != (q.duplicates == "only") ||
					q.hint != "" && all.rule.Set(&rec.marks)&q.hints == 0 ||
					q.flagged != "" && flag != (q.flagged == "only") || q.rule != nil && q.rule.At(e.Name, rec.place) != q.split
			})
			if where != nil && len(wanted) > 0 {
				cells++
				at := cellAt{e.Name, start}
				d, known := where.cells[at]
				if !known || d.etag != cell.etag {
					unread = append(unread, at)
					continue
				}
				answered = d.answers
			}
			for _, rec := range wanted {
				if where != nil {
					if yes, ok := answered[rec.Index]; !yes {
						if ok {
							r.Undecided++
						}
						continue
					}
				}
				hits = append(hits, hit{sampleRef{int32(n), rec.Index}, rec.by(q.sort)})
			}
		}
	}
	if where != nil {
		where.want(r.geometry, unread)
		if r.Reading == "" && len(unread) > 0 {
			r.Complete, r.Reading, r.Read, r.Of = false, "metadata", cells-len(unread), cells
		}
	}
	return hits
}

func (r *record) by(sort string) float32 {
	switch strings.TrimPrefix(sort, "-") {
	case "size":
		return float32(r.size)
	case "length":
		return r.seconds
	case "took":
		return r.took
	}
	return 0
}

func (x *index) result(key string) *result {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.results[key]
}

func (x *index) keep(key string, r *result) {
	x.mu.Lock()
	defer x.mu.Unlock()
	dropOldest(x.results, keptResults, func(r *result) time.Time { return r.made })
	x.results[key] = r
}
