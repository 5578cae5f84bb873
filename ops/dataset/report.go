package dataset

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Kind is what is wrong with an object. The set is closed.
type Kind string

// The kinds of damage; Means explains each.
const (
	MissingObject Kind = "missing_object"
	WrongSize     Kind = "wrong_size"
	WrongHash     Kind = "wrong_hash" // with the right size
	Undecodable   Kind = "undecodable"
	BadShard      Kind = "bad_shard" // with the bytes of its receipt
	StrayObject   Kind = "stray_object"
	BadReceipt    Kind = "bad_receipt" // damaged, under another's name, or in contradiction to itself
)

var meanings = map[Kind]string{
	MissingObject: "a receipt names it, and it is not there",
	WrongSize:     "not as long as its receipt says",
	WrongHash:     "not the bytes that its receipt says",
	Undecodable:   "the generator wrote a file that cannot be read, or a task_id that is not the sample's",
	BadShard:      "the shard does not hold just the samples of its receipt",
	StrayObject:   "no receipt names it",
	BadReceipt:    "the receipt cannot be trusted",
}

// Means is one phrase for an operator.
func (k Kind) Means() string { return meanings[k] }

// Damage is one thing that is wrong. It is an error within the check.
type Damage struct {
	Kind   Kind   `json:"kind"`
	Key    string `json:"key"` // of the object or receipt
	Detail string `json:"detail,omitempty"`
	index  int    // of the sample, if it is undecodable
}

func (d Damage) Error() string { return fmt.Sprintf("%s: %s: %s", d.Kind, d.Key, d.Detail) }

func wrongSize(key string, is, should int64) Damage {
	return Damage{Kind: WrongSize, Key: key, Detail: fmt.Sprintf("it has %d bytes, its receipt says %d", is, should)}
}

func wrongHash(key, is, should string) Damage {
	return Damage{Kind: WrongHash, Key: key,
		Detail: fmt.Sprintf("its SHA-256 is %.12s…, its receipt says %.12s…", is, should)}
}

// Report is what a check found.
type Report struct {
	Dataset    task.Dataset       `json:"dataset"`
	Run        string             `json:"run,omitempty"`
	Range      task.Range         `json:"range"` // of indices that were checked
	Deep       bool               `json:"deep,omitempty"`
	Complete   bool               `json:"complete"`
	Samples    int                `json:"samples"` // that are committed in the range
	Bytes      int64              `json:"bytes"`   // of their files
	Generators []*GeneratorReport `json:"generators"`

	// SameIDs are domains with the names of the generators that share them: ids are not distinct among these.
	SameIDs map[string][]string `json:"same_ids,omitempty"`
}

// GeneratorReport is what a check found of one generator.
type GeneratorReport struct {
	Name       string         `json:"name"`
	Complete   bool           `json:"complete"` // nothing is missing or damaged
	Expected   int            `json:"expected"`
	Samples    int            `json:"samples"`
	Bytes      int64          `json:"bytes"`
	Missing    []string       `json:"missing,omitempty"`          // ranges, first and last index
	Damaged    map[Kind]int   `json:"damaged,omitempty"`          // how much there is of each kind
	Examples   []Damage       `json:"examples,omitempty"`         // some of each kind
	Distinct   int            `json:"distinct"`                   // puzzles among the samples
	Duplicates int            `json:"duplicates"`                 // samples that are the same puzzle as an earlier one
	First      []Duplicate    `json:"first_duplicates,omitempty"` // of the duplicates
	Chunks     int            `json:"chunks"`                     // receipts of two samples and more
	Alike      int            `json:"chunks_alike,omitempty"`     // of these, those with the very samples of another
	Pool       *Pool          `json:"pool,omitempty"`             // how many puzzles the generator has, if it repeats some
	Seeds      []int          `json:"seeds"`                      // of the tasks; messages may have their own
	Domains    []string       `json:"domains,omitempty"`          // what its samples' ids begin with
	Commits    map[string]int `json:"commits,omitempty"`          // samples by commit of the generator
	Locks      map[string]int `json:"locks,omitempty"`            // samples by lock of its packages
	Resumed    int            `json:"resumed,omitempty"`          // cells whose contents an interrupted check had read

	plan GeneratorPlan
}

// Limits of what a report and a plan name. Counts have none.
const (
	maxExamples = 10      // of one kind
	maxFirst    = 10      // duplicates
	maxPlanned  = 200_000 // objects to remove, of one generator
)

// ChunksAlike reports whether most chunks hold the very samples of another: the generator ignores its seed.
func (r *GeneratorReport) ChunksAlike() bool { return 2*r.Alike > r.Chunks }

func (r *GeneratorReport) add(d Damage) {
	if r.Damaged[d.Kind]++; r.Damaged[d.Kind] <= maxExamples {
		r.Examples = append(r.Examples, d)
	}
}

var hashPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Contradiction returns what is wrong with a cell of a dataset's generator in itself, or "".
func Contradiction(c *store.Cell, d task.Dataset, generator string) string {
	if c.Version != 1 || c.Key() != c.Dataset.CellKey(c.Generator, c.Range()) ||
		c.Key() != d.CellKey(generator, c.Range()) {
		return fmt.Sprintf("it is of version %d, and of samples %s of generator %q in dataset %s", c.Version, c.Range(),
			c.Generator, c.Dataset)
	}
	for _, r := range c.Receipts {
		if wrong := wrongReceipt(r, c); wrong != "" {
			return wrong
		}
	}
	return ""
}

// Order checks cells that come in the order of their keys.
type Order struct{ end int } // of the last cell that can be trusted

// Contradiction returns why a cell cannot be trusted, in itself or after those before it, or nothing.
func (o *Order) Contradiction(c *store.Cell, d task.Dataset, generator string) string {
	if wrong := Contradiction(c, d, generator); wrong != "" {
		return wrong
	}
	if c.Start < o.end {
		return "it overlaps another"
	}
	o.end = c.End
	return ""
}

func wrongReceipt(r store.Receipt, c *store.Cell) string {
	switch {
	case r.Generator != c.Generator || r.Dataset.String() != c.Dataset.String():
		return fmt.Sprintf("it has a receipt of generator %q in dataset %s", r.Generator, r.Dataset)
	case r.Epoch < 1 || r.Epoch > c.Epoch:
		return fmt.Sprintf("a receipt is of epoch %d", r.Epoch)
	case task.CheckName(r.Domain) != nil:
		return fmt.Sprintf("its domain %.60q is no name", r.Domain)
	case r.Format != task.Files && r.Format != task.Tar || (r.Format == task.Tar) != (r.Shard != nil):
		return fmt.Sprintf("its format %.40q and its objects do not fit", r.Format)
	case len(r.Samples) == 0 || r.Samples[0].Index != r.Start || r.Samples[len(r.Samples)-1].Index != r.End-1 ||
		!c.Range().Contains(r.Range()):
		return "its samples and its range do not fit"
	}
	if r.Shard != nil {
		of, ok := r.Dataset.ShardRange(r.Shard.Key)
		if !ok || !of.Contains(r.Range()) || !strings.HasPrefix(r.Shard.Key, r.Dataset.SamplesPrefix(r.Generator)) ||
			!hashPattern.MatchString(r.Shard.SHA256) {
			return "its shard is no shard of its samples"
		}
	}
	for i, s := range r.Samples {
		if i > 0 && s.Index <= r.Samples[i-1].Index || r.Indices != nil && !slices.Contains(r.Indices, s.Index) {
			return fmt.Sprintf("sample %d has no place in it", s.Index)
		}
		if wrong := wrongSample(s, r.Domain); wrong != "" {
			return fmt.Sprintf("sample %d: %s", s.Index, wrong)
		}
	}
	return ""
}

func wrongSample(s store.ReceiptSample, domain string) string {
	if s.ID != task.SampleID(domain, s.Index) || len(s.Files) == 0 {
		return fmt.Sprintf("its id is %.60q, and it has %d files", s.ID, len(s.Files))
	}
	seen := map[string]bool{}
	for _, f := range s.Files {
		switch {
		case sample.CheckName(f.Name) != nil || seen[f.Name]:
			return fmt.Sprintf("a file cannot be called %.60q, or not twice", f.Name)
		case f.Size < 0 || !hashPattern.MatchString(f.SHA256):
			return fmt.Sprintf("size or hash of %s is none", f.Name)
		}
		seen[f.Name] = true
	}
	return ""
}

// Difference is one thing in which two datasets differ.
type Difference struct {
	Generator string `json:"generator,omitempty"` // empty for what holds for all
	What      string `json:"what"`
	A         string `json:"a"`
	B         string `json:"b"`
}

// Differences compares what two datasets pin and were asked for.
func Differences(a, b *task.Manifest) []Difference {
	list := []Difference{}
	compare := func(generator, what string, x, y any) {
		if x, y := fmt.Sprint(x), fmt.Sprint(y); x != y {
			list = append(list, Difference{generator, what, x, y})
		}
	}
	compare("", "seed", a.Seed, b.Seed)
	compare("", "format", a.Format, b.Format)
	var names []string
	for _, g := range slices.Concat(a.Generators, b.Generators) {
		names = append(names, g.Name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		x, y := a.Generator(name), b.Generator(name)
		if x == nil || y == nil {
			exists := map[bool]string{true: "yes", false: "no"}
			compare(name, "exists", exists[x != nil], exists[y != nil])
			continue
		}
		compare(name, "chunk", x.ChunkSize, y.ChunkSize)
		compare(name, "options", x.Options, y.Options)
		compare(name, "commits", strings.Join(a.Commits(name), ", "), strings.Join(b.Commits(name), ", "))
		compare(name, "locks", strings.Join(a.Locks(name), ", "), strings.Join(b.Locks(name), ", "))
		compare(name, "asked for", Extent(a.Asked(name)), Extent(b.Asked(name)))
	}
	return list
}
