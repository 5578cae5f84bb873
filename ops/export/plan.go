package export

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/flags"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// IncompleteError says that samples which were asked for are not committed.
type IncompleteError struct {
	Dataset string
	Missing int            // samples
	Of      map[string]int // by generator
}

func (e *IncompleteError) Error() string {
	names := sortedKeys(e.Of)
	return fmt.Sprintf("dataset %s is incomplete: %d samples of %s are missing", e.Dataset, e.Missing,
		strings.Join(names, ", "))
}

// DamageError says that an object is not what its receipt says.
type DamageError struct {
	Key    string
	Reason string // goes on after the key: is not in the bucket
}

func (e *DamageError) Error() string { return e.Key + " " + e.Reason }

// chosen is a sample of a cell with the receipt that describes it.
type chosen struct {
	receipt *store.Receipt
	sample  store.ReceiptSample
}

// current returns the samples of a cell, in the order of their indices.
func current(c *store.Cell) []chosen {
	var list []chosen
	for i := range c.Receipts {
		for _, s := range c.Receipts[i].Current {
			list = append(list, chosen{&c.Receipts[i], s})
		}
	}
	slices.SortFunc(list, func(a, b chosen) int { return cmp.Compare(a.sample.Index, b.sample.Index) })
	return list
}

func (c chosen) digest(h hash.Hash) {
	r, s := c.receipt, c.sample
	fmt.Fprintf(h, "%d %s %q %d %d %s %s %q %q\n", s.Index, s.ID, s.Fingerprint, r.Seed, r.Attempt, r.Commit, r.Lock,
		r.Python, r.Platform)
	if len(r.Options) > 0 {
		fmt.Fprintf(h, "%q\n", r.Options)
	}
	for _, f := range s.Files {
		fmt.Fprintf(h, "%q %d %s\n", f.Name, f.Size, f.SHA256)
	}
}

func (c chosen) bytes() (n int64) {
	for _, f := range c.sample.Files {
		n += f.Size
	}
	return n
}

// overhead is about what a row takes in a file beside the bytes of its files.
func (c chosen) overhead() int64 { return 2<<10 + 1<<10*int64(len(c.sample.Files)) }

// planner makes a plan, reading each cell once.
type planner struct {
	*Export
	plan      *Plan
	cut       Cut
	splits    *Splits
	where     *Condition
	flagged   flags.Set // that are left out
	out       hash.Hash // of those that were
	undecided int       // samples of which --where could not say anything
}

func (e *Export) makePlan(ctx context.Context) (*Plan, error) {
	p := &planner{Export: e, cut: e.Format.Cut(e.Options.ShardSize),
		plan: &Plan{Dataset: e.Store.Dataset().String(), Format: e.Format.Name(), Options: e.Options}}
	var err error
	if p.splits, err = ParseSplits(e.Options.Split); err != nil {
		return nil, fmt.Errorf("--split: %w", err)
	}
	e.source.splits = p.splits
	if p.where, err = ParseCondition(e.Options.Where); err != nil {
		return nil, err
	}
	m, err := e.Store.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	p.plan.Seed, p.plan.Splits = m.Seed, p.splits.Names()
	names := e.Options.Generators
	if len(names) == 0 {
		for _, g := range m.Generators {
			names = append(names, g.Name)
		}
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if err := p.splits.checkGenerators(names); err != nil {
		return nil, err
	}
	if e.Options.Without == WithoutFlagged {
		list, err := flags.List(ctx, e.Store, names...)
		if err != nil {
			return nil, err
		}
		p.flagged, p.out, p.plan.Flagged = flags.NewSet(list), sha256.New(), &Flagged{}
	}
	for _, name := range names {
		if err := p.generator(ctx, &m, name); err != nil {
			return nil, err
		}
	}
	if p.plan.Flagged != nil {
		p.plan.Flagged.Digest = hex.EncodeToString(p.out.Sum(nil))
	}
	return p.plan, p.check()
}

// check refuses a plan that cannot be carried out.
func (p *planner) check() error {
	if p.undecided > 0 {
		p.Say("--where leaves out %d samples whose metadata do not have what it asks for", p.undecided)
	}
	e := &IncompleteError{Dataset: p.plan.Dataset, Of: p.plan.Missing}
	keys := map[string]string{}
	rows := 0
	for _, g := range p.plan.Generators {
		if other, ok := keys[g.Key]; ok {
			return fmt.Errorf("the samples of %s and %s would have the same keys: export one of them alone", other, g.Name)
		}
		keys[g.Key] = g.Name
		rows += g.Rows
	}
	for _, n := range p.plan.Missing {
		e.Missing += n
	}
	switch {
	case e.Missing > 0 && !p.Options.Partial:
		return e
	case rows == 0 && p.where != nil:
		return fmt.Errorf("--where %q: no sample is like that", p.Options.Where)
	case rows == 0 && p.plan.Flagged != nil && p.plan.Flagged.Samples > 0:
		return fmt.Errorf("--without flagged: all %d samples are flagged", p.plan.Flagged.Samples)
	case rows == 0:
		return fmt.Errorf("dataset %s has no committed samples of %s", p.plan.Dataset, cmp.Or(
			strings.Join(p.Options.Generators, ", "), "any generator"))
	}
	return nil
}

func (p *planner) generator(ctx context.Context, m *task.Manifest, name string) error {
	g := &Generator{Name: name, Key: strings.ReplaceAll(name, ".", "-"), Splits: map[string]int{},
		Names: map[string]int{}, Media: map[string]int{}, Unplayable: map[string]int{}, Commits: map[string]int{},
		Locks: map[string]int{}, Platforms: map[string]int{}, Images: map[string]int{}}
	if p.About != nil {
		g.Licence, g.Repository, g.Category = p.About(name)
	}
	c := &cutter{cut: p.cut, generator: name, last: map[string]*opened{}}
	seen, domains, seeds := map[[8]byte]bool{}, map[string]bool{}, map[int]bool{}
	var committed []task.Range
	names, err := p.Store.CellNames(ctx, name, task.Range{End: task.MaxIndex})
	if err != nil {
		return err
	}
	done := 0
	var order dataset.Order
	for cell, err := range p.Store.Cells(ctx, names) {
		if err != nil {
			return damaged(err)
		}
		if wrong := order.Contradiction(cell, p.Store.Dataset(), name); wrong != "" {
			return &DamageError{cell.Key(), "cannot be trusted: " + wrong}
		}
		done++
		p.Progress(Progress{Doing: "reading receipts of " + name, Done: int64(done), Total: int64(len(names))})
		samples := current(cell)
		for _, s := range samples {
			committed = extend(committed, s.sample.Index)
		}
		samples = slices.DeleteFunc(samples, func(c chosen) bool {
			flagged := len(p.flagged.Open(name, c.sample)) > 0
			if flagged {
				p.plan.Flagged.Samples++
				fmt.Fprintf(p.out, "%s %d %s\n", name, c.sample.Index, dataset.Digest(c.sample))
			}
			return flagged
		})
		if samples, err = p.filter(ctx, cell, samples); err != nil {
			return err
		}
		for _, s := range samples {
			if p.Options.PerGenerator > 0 && g.Rows == p.Options.PerGenerator {
				break
			}
			if err := p.splits.check(name, s.sample.Fingerprint); err != nil {
				return err
			}
			split := p.splits.of(name, s.sample.Fingerprint)
			c.add(s, split)
			g.add(s, split, p.Options.Video)
			seen[markOf(s.sample.Fingerprint)] = true
			domains[s.receipt.Domain], seeds[s.receipt.Seed] = true, true
		}
	}
	p.source.rules[name], g.marks = inspect.RuleOf(g.marks), nil
	g.Distinct, g.Seeds, g.Domains = len(seen), len(seeds), slices.Sorted(maps.Keys(domains))
	p.complete(g, m, committed)
	p.plan.Parts = append(p.plan.Parts, c.finish(p.splits.Names())...)
	p.plan.Generators = append(p.plan.Generators, g)
	return nil
}

// filter keeps the samples of a cell for which --where holds.
func (p *planner) filter(ctx context.Context, cell *store.Cell, samples []chosen) ([]chosen, error) {
	if p.where == nil {
		return samples, nil
	}
	var kept []chosen
	n := -1 // of the sample; rows come in the same order
	for row, err := range p.source.cell(ctx, cell, samples, p.where.WantsFile) {
		if err != nil {
			return nil, err
		}
		yes, decided, err := p.where.Holds(row)
		if err != nil {
			return nil, err
		}
		if n++; yes {
			kept = append(kept, samples[n])
		}
		if !decided {
			p.undecided++
		}
	}
	return kept, nil
}

// complete finds out what is missing of a generator.
func (p *planner) complete(g *Generator, m *task.Manifest, committed []task.Range) {
	var asked []task.Range
	for _, e := range m.History {
		if e.Asked != nil && slices.Contains(e.Generators, g.Name) {
			asked = append(asked, *e.Asked)
		}
	}
	all := m.Asked(g.Name)
	never := dataset.Gaps(all, asked)
	g.Asked = all.Len() - dataset.Length(never)
	missing := 0
	for _, gap := range dataset.Gaps(all, slices.Concat(committed, never)) {
		missing += gap.Len()
		g.Missing = append(g.Missing, dataset.Extent(gap))
	}
	if missing > 0 {
		if p.plan.Missing == nil {
			p.plan.Missing = map[string]int{}
		}
		p.plan.Missing[g.Name] = missing
	}
}

// extend adds an index to ranges, which mostly follows the last one.
func extend(ranges []task.Range, index int) []task.Range {
	if n := len(ranges); n > 0 && ranges[n-1].End == index {
		ranges[n-1].End++
		return ranges
	}
	return append(ranges, task.Range{Start: index, End: index + 1})
}

func (g *Generator) add(c chosen, split, video string) {
	r := c.receipt
	g.Rows++
	g.Largest = max(g.Largest, c.bytes())
	g.Splits[split]++
	g.Commits[r.Commit]++
	g.Locks[r.Lock]++
	g.Platforms[strings.TrimPrefix(r.Platform+", Python "+r.Python, ", ")]++
	if r.Image != "" {
		g.Images[imageDigest(r.Image)]++
	}
	if g.Command == nil {
		g.Command = r.Command
	}
	g.marks = append(g.marks, inspect.MarksOf(&c.sample))
	shapes := map[string]bool{}
	for _, f := range c.sample.Files {
		g.Files++
		g.Bytes += f.Size
		m := f.Media
		if m.Codec != "" {
			g.Media[describeVideo(&m)]++
			if n := m.Frames; n > 0 {
				g.FewestFrames, g.MostFrames = min(cmp.Or(g.FewestFrames, n), n), max(g.MostFrames, n)
			}
		}
		if sample.IsVideo(f.Name) && !inspect.Plays(f.Name, m) {
			g.Unplayable[cmp.Or(describeVideo(&m), shape(f.Name))]++
		}
		shapes[shape(EncodedName(video, f.Name))] = true
	}
	for name := range shapes {
		g.Names[name]++
	}
}

// shape is the name of a file; of one in a sub-folder, the folder and the extension.
func shape(name string) string {
	if dir := path.Dir(name); dir != "." {
		return dir + "/*" + path.Ext(name)
	}
	return name
}

// cutter cuts the rows of a generator into parts.
type cutter struct {
	cut       Cut
	generator string
	parts     []*opened
	last      map[string]*opened // by split
}

type opened struct {
	Part
	size int64 // bytes that its file will have, nearly
	hash hash.Hash
}

func (c *cutter) add(s chosen, split string) {
	if !c.cut.BySplit {
		split = ""
	}
	o, size, number := c.last[split], s.bytes(), 0
	if o != nil && c.cut.Bytes > 0 && o.size+size+s.overhead() > c.cut.Bytes {
		o, number = nil, o.Number+1
	}
	if o == nil {
		o = &opened{Part: Part{Generator: c.generator, Split: split, Number: number}, hash: sha256.New()}
		c.last[split], c.parts = o, append(c.parts, o)
	}
	s.digest(o.hash)
	o.size += size + s.overhead()
	o.Ranges, o.Rows, o.Bytes = extend(o.Ranges, s.sample.Index), o.Rows+1, o.Bytes+size
}

// finish returns all parts, split by split.
func (c *cutter) finish(splits []string) (list []Part) {
	slices.SortFunc(c.parts, func(a, b *opened) int {
		return cmp.Or(cmp.Compare(slices.Index(splits, a.Split), slices.Index(splits, b.Split)),
			cmp.Compare(a.Number, b.Number))
	})
	for _, o := range c.parts {
		o.Of, o.Digest = c.last[o.Split].Number+1, hex.EncodeToString(o.hash.Sum(nil))
		o.Name = fmt.Sprintf("%s-%s-%05d", o.Generator, cmp.Or(o.Split, "all"), o.Number)
		list = append(list, o.Part)
	}
	return list
}

// Rows returns the number of samples that are exported.
func (p *Plan) Rows() (n int) {
	for _, g := range p.Generators {
		n += g.Rows
	}
	return n
}

// Bytes returns the size of the files that are exported, as they are in the bucket.
func (p *Plan) Bytes() (n int64) {
	for _, g := range p.Generators {
		n += g.Bytes
	}
	return n
}

// id tells the plan from one of other samples or other options.
func (p *Plan) id() string {
	h := sha256.New()
	e := json.NewEncoder(h)
	if err := errors.Join(e.Encode(p.Options), e.Encode(p.Parts), e.Encode(p.Missing), e.Encode(p.Flagged)); err != nil {
		panic(err) // strings and numbers
	}
	_, _ = io.WriteString(h, p.Dataset+" "+p.Format)
	return hex.EncodeToString(h.Sum(nil))
}

// damaged makes an error of the store one that says which object is damaged, if it says so.
func damaged(err error) error {
	if broken, ok := errors.AsType[*store.Error](err); ok && errors.Is(err, store.ErrDamaged) {
		return &DamageError{broken.Key, "cannot be read: " + broken.Err.Error()}
	}
	return err
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
