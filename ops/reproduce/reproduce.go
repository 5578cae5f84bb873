// Package reproduce makes a committed sample again and compares it with its receipt.
package reproduce

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/contract"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inventory"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/probe"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// Request says which sample is made again, and how.
type Request struct {
	Generator string
	Index     int
	To        string // folder to keep the sample in, as To/<sample>; "" for none
	Here      bool   // on this machine, even if the receipt names an image
	Inventory inventory.Inventory
}

// Reproduction is the result.
type Reproduction struct {
	Generator      string   `json:"generator"`
	Index          int      `json:"index"`
	ID             string   `json:"id"`
	Receipt        string   `json:"receipt"`
	Command        []string `json:"command"`
	In             string   `json:"in"` // the image, or "this machine"
	Commit         string   `json:"commit,omitempty"`
	CommitHere     string   `json:"commit_here,omitempty"`
	Equal          bool     `json:"equal"`
	Files          []File   `json:"files"`
	Deterministic  *bool    `json:"deterministic,omitempty"`   // known when it had to be run twice
	OnlyTimestamps bool     `json:"only_timestamps,omitempty"` // nothing else differs, and that in metadata
	// what is not as the receipt names it: commit, lock, Python, platform, image
	Others []string `json:"others,omitempty"`
	Notes  []string `json:"notes,omitempty"`
	To     string   `json:"to,omitempty"`
}

// File is one file of a sample, as the receipt has it and as it was made again.
type File struct {
	Name    string   `json:"name"`
	Verdict string   `json:"verdict"` // equal, differs, missing (not made again), new (not in the receipt)
	Was     string   `json:"was,omitempty"`
	Is      string   `json:"is,omitempty"`     // SHA-256
	Varies  bool     `json:"varies,omitempty"` // it differs between two runs here as well
	Fields  []string `json:"fields,omitempty"` // of a JSON file, that differ
}

// Sample makes a sample again. If it differs, it makes it a second time, to find out whether the generator is
// deterministic. The error is store.ErrNotFound if the sample is not committed.
func Sample(ctx context.Context, st *store.Store, q Request) (*Reproduction, error) {
	receipt, was, err := dataset.Find(ctx, st, q.Generator, q.Index)
	if err != nil {
		return nil, err
	}
	r := &rerun{receipt: receipt, was: was, store: st}
	p := &Reproduction{Generator: q.Generator, Index: q.Index, ID: was.ID, Receipt: receipt.ReadFrom,
		Command: receipt.Command, Commit: receipt.Commit}
	if err := r.choose(ctx, q, p); err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "vm-dataset-reproduce-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	where := "in " + p.In
	if r.image == nil {
		where = "on " + p.In
	}
	q.Inventory.Say("running %s %s", strings.Join(receipt.Command, " "), where)
	first, err := r.run(ctx, filepath.Join(scratch, "1"))
	if err != nil {
		return nil, err
	}
	p.Files = compare(was, first)
	p.Equal = !slices.ContainsFunc(p.Files, func(f File) bool { return f.Verdict != "equal" })
	if !p.Equal {
		q.Inventory.Say("something differs; running it a second time")
		second, err := r.run(ctx, filepath.Join(scratch, "2"))
		if err != nil {
			return nil, err
		}
		if err := r.explain(ctx, p, first, second); err != nil {
			return nil, err
		}
	}
	if q.To != "" {
		if p.To, err = keep(first, q.To); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// choose decides where the generator runs.
func (r *rerun) choose(ctx context.Context, q Request, p *Reproduction) error {
	if image := r.receipt.Image; image != "" && !q.Here {
		found, err := findImage(ctx, image)
		if err != nil {
			p.Notes = append(p.Notes, fmt.Sprintf("the receipt's image cannot be run here: %v", err))
		} else {
			i := slices.IndexFunc(found.Generators, func(g generator.Generator) bool { return g.Name == q.Generator })
			if i < 0 {
				return fmt.Errorf("image %s has no generator %s", image, q.Generator)
			}
			r.generator, r.image, p.In, p.CommitHere = &found.Generators[i], found, image, found.Generators[i].Commit
		}
	}
	if r.generator == nil {
		lock, err := q.Inventory.FindLock(ctx, r.store, r.receipt)
		if err != nil {
			return err
		}
		say := func(line string) { q.Inventory.Say("%s", line) }
		if r.generator, err = local.Remake(ctx, q.Inventory.LocalDir, q.Inventory.Generators, q.Generator, lock,
			r.receipt.Python, say); err != nil {
			return err
		}
		p.In, p.CommitHere = "this machine", r.generator.Commit
	}
	r.differences(p)
	return nil
}

// differences notes what the receipt names and is different here.
func (r *rerun) differences(p *Reproduction) {
	image := ""
	if r.image != nil {
		image = r.receipt.Image
	}
	for _, is := range []struct{ what, was, here, why string }{
		{"commit", r.receipt.Commit, r.generator.Commit, ""},
		{"lock", r.receipt.Lock, r.generator.Lock, ""},
		{"Python", r.receipt.Python, r.generator.Version, ": that is not on the PATH, and uv could not bring it"},
		{"platform", r.receipt.Platform, r.generator.Platform, ""},
		{"image", r.receipt.Image, image, ""},
	} {
		if is.was == is.here {
			continue
		}
		p.Others = append(p.Others, is.what)
		p.Notes = append(p.Notes, fmt.Sprintf("the receipt's %s is %s, this one is %s%s", is.what, cmp.Or(is.was, "none"),
			cmp.Or(is.here, "none"), is.why))
	}
}

func findImage(ctx context.Context, image string) (*local.Image, error) {
	if _, err := exec.LookPath("docker"); err != nil {
		return nil, errors.New("there is no docker on the PATH")
	}
	return local.FindImage(ctx, image)
}

// rerun makes the samples of a receipt again.
type rerun struct {
	store     *store.Store
	receipt   store.Receipt
	was       store.ReceiptSample
	generator *generator.Generator
	image     *local.Image // nil for this machine
}

// run makes them in a new folder and returns the one that is asked for.
func (r *rerun) run(ctx context.Context, dir string) (sample.Sample, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return sample.Sample{}, err
	}
	samples, offset := r.receipt.Made(), r.was.Index-r.receipt.ChunkStart
	if r.receipt.Indices != nil {
		offset = slices.Index(r.receipt.Indices, r.was.Index)
	}
	request := generator.Request{Generator: r.generator, Samples: samples, Seed: r.receipt.Seed,
		StartIndex: r.receipt.ChunkStart, Command: r.receipt.Command, Scratch: dir}
	run := generator.Run
	if r.image != nil {
		run = r.image.Rerun
	}
	result, err := run(ctx, request)
	if err != nil {
		if f, ok := errors.AsType[*generator.Failure](err); ok && f.Stderr != "" {
			return sample.Sample{}, fmt.Errorf("%w: its stderr is %s", err, strings.TrimSpace(f.Stderr))
		}
		return sample.Sample{}, err
	}
	_, made, err := probe.Collect(r.generator, result.Output, samples, sample.Place{Offset: offset, Index: r.was.Index})
	if err != nil {
		return sample.Sample{}, fmt.Errorf("the new sample cannot be compared: %w", err)
	}
	return made[0], nil
}

// keep copies a sample to a folder, where it must not be yet.
func keep(s sample.Sample, to string) (string, error) {
	dir := filepath.Join(to, s.ID)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("keep the sample: %w", err)
	}
	for _, f := range s.Files {
		data, err := os.ReadFile(f.Path)
		file := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(file), 0o755)
		}
		if err == nil {
			err = atomicfile.Write(file, data)
		}
		if err != nil {
			return "", err
		}
	}
	return dir, nil
}

// Verdict says in one sentence how the two compare.
func (p *Reproduction) Verdict() string {
	switch {
	case p.Equal:
		return "equal"
	case p.OnlyTimestamps:
		return "differs in timestamps of its metadata only; the generator writes the time"
	case p.Deterministic != nil && !*p.Deterministic:
		return "differs; the generator is not deterministic: two runs of one command differ here"
	case p.Others != nil:
		return "differs; two runs agree here, where this is not as in the receipt: " + strings.Join(p.Others, ", ")
	}
	return "differs; two runs agree here, with all that the receipt names: what it does not name has changed, " +
		"as the generator's files, the machine's libraries or its fonts"
}

func compare(was store.ReceiptSample, is sample.Sample) []File {
	var list []File
	for _, f := range was.Files {
		c := File{Name: f.Name, Verdict: "missing", Was: f.SHA256}
		if i := slices.IndexFunc(is.Files, func(x sample.File) bool { return x.Name == f.Name }); i >= 0 {
			c.Is, c.Verdict = is.Files[i].SHA256, "differs"
		}
		if c.Is == c.Was {
			c.Verdict = "equal"
		}
		list = append(list, c)
	}
	for _, f := range is.Files {
		if !slices.ContainsFunc(was.Files, func(x store.ReceiptFile) bool { return x.Name == f.Name }) {
			list = append(list, File{Name: f.Name, Verdict: "new", Is: f.SHA256})
		}
	}
	return list
}

// explain finds out more of what differs: whether it differs between two runs, too, and which fields of a JSON file do.
func (r *rerun) explain(ctx context.Context, p *Reproduction, first, second sample.Sample) error {
	same := true
	for _, c := range compare(first, second) {
		if c.Verdict == "equal" {
			continue
		}
		same = false
		if i := slices.IndexFunc(p.Files, func(f File) bool { return f.Name == c.Name }); i >= 0 {
			p.Files[i].Varies = true
		}
	}
	p.Deterministic = &same
	p.OnlyTimestamps = true
	for i := range p.Files {
		f := &p.Files[i]
		if f.Verdict == "equal" {
			continue
		}
		times := false
		if f.Verdict == "differs" && path.Ext(f.Name) == ".json" {
			before, unreadable := r.stored(ctx, f.Name)
			at := slices.IndexFunc(first.Files, func(x sample.File) bool { return x.Name == f.Name })
			after, err := os.ReadFile(first.Files[at].Path)
			if err != nil {
				return err
			}
			if unreadable != nil {
				p.Notes = append(p.Notes, fmt.Sprintf("the stored %s cannot be compared: %v", f.Name, unreadable))
			} else {
				f.Fields, times = contract.DifferingFields(before, after)
			}
		}
		p.OnlyTimestamps = p.OnlyTimestamps && times && len(f.Fields) > 0
	}
	return nil
}

// stored returns a stored file of the sample, which must be what its receipt says.
func (r *rerun) stored(ctx context.Context, name string) ([]byte, error) {
	i := slices.IndexFunc(r.was.Files, func(f store.ReceiptFile) bool { return f.Name == name })
	f := r.was.Files[i]
	key := r.receipt.Dataset.FileKey(r.receipt.Generator, r.was.ID, name)
	if r.receipt.Shard != nil {
		key = r.receipt.Shard.Key
	}
	var data []byte
	read := func(from io.Reader) (err error) {
		data, err = io.ReadAll(io.LimitReader(from, f.Size+1))
		return err
	}
	err := r.store.Stream(ctx, key, func(from io.Reader, _ store.Object) error {
		if r.receipt.Shard == nil {
			return read(from)
		}
		return dataset.ReadShard(from, r.receipt, func(s store.ReceiptSample, f store.ReceiptFile, from io.Reader) error {
			if s.ID != r.was.ID || f.Name != name {
				return nil
			}
			return read(from)
		})
	})
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != f.SHA256 {
		return nil, errors.New("it differs from its receipt; ops verify --deep finds out more")
	}
	return data, nil
}
