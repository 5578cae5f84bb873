package dataset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Plan is what a check found that can be repaired, but for gaps. It names objects and receipts as they were: what has
// changed since is left alone.
type Plan struct {
	Version    int             `json:"version"`
	Made       time.Time       `json:"made"`
	Bucket     string          `json:"bucket"`
	Dataset    task.Dataset    `json:"dataset"`
	Run        string          `json:"run,omitempty"` // that was checked
	Range      task.Range      `json:"range"`         // that was checked, whose gaps are to be filled
	Deep       bool            `json:"deep"`
	Generators []GeneratorPlan `json:"generators"`
}

// GeneratorPlan is what can be repaired of one generator.
type GeneratorPlan struct {
	Name    string   `json:"name"`
	Gone    []Ref    `json:"gone,omitempty"`    // receipts with objects that are not there
	Corrupt []Ref    `json:"corrupt,omitempty"` // receipts with objects that are wrong
	Replace []Draw   `json:"replace,omitempty"` // samples that another draw must replace
	Remove  []string `json:"remove,omitempty"`  // objects that no receipt names, and receipts that cannot be trusted
}

// Ref names a receipt as it was.
type Ref struct {
	Key    string `json:"key"`    // of its cell
	Digest string `json:"digest"` // SHA-256 of the receipt, hexadecimal
}

// Draw names a sample as it was.
type Draw struct {
	Index  int    `json:"index"`
	Digest string `json:"digest"` // by Digest
}

// Digest is the SHA-256 of the names, sizes and hashes of a sample's files: another one if a file differs.
func Digest(s store.ReceiptSample) string {
	h := sha256.New()
	for _, f := range s.Files {
		fmt.Fprintf(h, "%q %d %s\n", f.Name, f.Size, f.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Replaceable returns the indices of the samples that are still as they were, in order, the number of the others, and
// the highest attempt of a repair near them.
func Replaceable(ctx context.Context, st *store.Store, generator string, list []Draw) (indices []int, changed,
	attempt int, err error) {
	was, all := map[Draw]bool{}, []int{}
	for _, d := range list {
		was[d] = true
		all = append(all, d.Index)
	}
	slices.Sort(all)
	view := View{Generator: generator}
	for c, err := range CellsOf(ctx, st, generator, slices.Compact(all)) {
		if err != nil {
			return nil, 0, 0, err
		}
		view.Add(c)
		for _, r := range c.Receipts {
			for _, s := range r.Current {
				if was[Draw{s.Index, Digest(s)}] {
					indices = append(indices, s.Index)
				}
			}
		}
	}
	slices.Sort(indices)
	return indices, len(was) - len(indices), view.Attempt, nil
}

// digest is the SHA-256 of a receipt.
func digest(r store.Receipt) string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings, numbers and times of a receipt that was read
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Plan returns what repairs the generators that are not complete, in a bucket.
func (r *Report) Plan(bucket string) *Plan {
	p := &Plan{Version: 1, Made: time.Now().UTC(), Bucket: bucket, Dataset: r.Dataset, Run: r.Run, Range: r.Range,
		Deep: r.Deep}
	for _, g := range r.Generators {
		if !g.Complete {
			p.Generators = append(p.Generators, g.plan)
		}
	}
	return p
}

// Needs reports whether the plan has more than gaps, and whether it would write over objects or remove some.
func (p *Plan) Needs() (repair, overwrite bool) {
	for _, g := range p.Generators {
		overwrite = overwrite || len(g.Corrupt)+len(g.Replace)+len(g.Remove) > 0
		repair = repair || overwrite || len(g.Gone) > 0
	}
	return repair, overwrite
}

// Write writes the plan to a file, in one step.
func (p *Plan) Write(path string) error {
	text, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(path, append(text, '\n'))
}

// ReadPlan reads a plan and checks that it is for a store's bucket and dataset.
func ReadPlan(path string, st *store.Store) (*Plan, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := &Plan{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("%s is no repair plan: %w", path, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) || p.Version != 1 {
		return nil, fmt.Errorf("%s is no repair plan of this version", path)
	}
	if p.Bucket != st.Bucket() {
		return nil, fmt.Errorf("%s is a plan for the bucket %s, this stack's is %s", path, p.Bucket, st.Bucket())
	}
	if p.Dataset.String() != st.Dataset().String() {
		return nil, fmt.Errorf("%s is a plan for dataset %s: give --dataset %[2]s", path, p.Dataset)
	}
	for _, g := range p.Generators {
		if err := task.CheckName(g.Name); err != nil {
			return nil, fmt.Errorf("%s: generator %w", path, err)
		}
	}
	return p, nil
}

// Restorations returns the tasks that make the receipts' objects again, and how many receipts have changed since.
func Restorations(ctx context.Context, st *store.Store, generator string, refs []Ref) (tasks []task.Task, changed int,
	err error) {
	for _, ref := range refs {
		c, err := st.Cell(ctx, ref.Key)
		if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrDamaged) {
			return nil, 0, err
		}
		at := -1
		if err == nil && Contradiction(c, st.Dataset(), generator) == "" {
			at = slices.IndexFunc(c.Receipts, func(r store.Receipt) bool { return digest(r) == ref.Digest })
		}
		if at < 0 {
			changed++
			continue
		}
		r := c.Receipts[at]
		t := task.Task{Dataset: r.Dataset, Generator: generator, Seed: r.RunSeed, Format: r.Format, ChunkSize: r.ChunkSize,
			PartSize: r.PartSize, Restore: r.Epoch, Attempt: r.Attempt, Options: r.Options}
		if r.Indices != nil {
			t.Indices, t.PartSize, t.Attempt = r.Indices, 0, r.FirstAttempt
		} else {
			t.StartIndex, t.NumSamples = r.Start, r.Range().Len()
		}
		tasks = append(tasks, t)
	}
	return tasks, changed, nil
}

// Removable returns those of the keys that still are objects which no receipt names, or cells that cannot be trusted.
func Removable(ctx context.Context, st *store.Store, generator string, list []string) ([]string, error) {
	d := st.Dataset()
	near := task.Range{Start: task.MaxIndex} // what they are of: the cells of other samples do not name them
	remove := map[string]bool{}
	for _, key := range list {
		var of task.Range
		switch {
		case strings.HasPrefix(key, d.SamplesPrefix(generator)):
			of, _ = placeOf(d, generator, key)
		case strings.HasPrefix(key, d.CellsPrefix(generator)):
			of, _ = task.CellRange(key)
		default:
			return nil, fmt.Errorf("%s is no object of %s", key, generator)
		}
		if remove[key] = true; of.Len() > 0 {
			near = task.Range{Start: min(near.Start, of.Start), End: max(near.End, of.End)}
		}
	}
	for c, err := range st.CellsIn(ctx, generator, near, nil) {
		if errors.Is(err, store.ErrDamaged) || err == nil && Contradiction(c, d, generator) != "" {
			continue
		}
		if err != nil {
			return nil, err
		}
		delete(remove, c.Key())
		for _, r := range c.Receipts {
			for _, key := range r.Objects() {
				delete(remove, key)
			}
		}
	}
	return slices.Sorted(maps.Keys(remove)), nil
}
