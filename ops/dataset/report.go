package dataset

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Kind says what is wrong with an object. The set is closed.
type Kind string

// The kinds of damage.
const (
	MissingObject Kind = "missing_object" // a receipt names it and it is not there
	WrongSize     Kind = "wrong_size"     // it is longer or shorter than its receipt says
	WrongHash     Kind = "wrong_hash"     // it has the right size and other bytes
	Undecodable   Kind = "undecodable"    // the bytes are the receipt's, and cannot be read, or name another sample
	BadShard      Kind = "bad_shard"      // the bytes are the receipt's, and do not hold just its samples
	StrayObject   Kind = "stray_object"   // no receipt names it
	BadReceipt    Kind = "bad_receipt"    // it cannot be read, stands under another's name, or contradicts itself
)

// Kinds lists every kind, in the order of reports.
func Kinds() []Kind {
	return []Kind{MissingObject, WrongSize, WrongHash, Undecodable, BadShard, StrayObject, BadReceipt}
}

// Means is one phrase for an operator.
func (k Kind) Means() string { return meanings[k] }

var meanings = map[Kind]string{
	MissingObject: "a receipt names it, and it is not there",
	WrongSize:     "not as long as its receipt says",
	WrongHash:     "not the bytes that its receipt says",
	Undecodable:   "the generator wrote a file that cannot be read, or a task_id that is not the sample's",
	BadShard:      "the shard does not hold just the samples of its receipt",
	StrayObject:   "no receipt names it",
	BadReceipt:    "the receipt cannot be trusted",
}

// Damage is one thing that is wrong.
type Damage struct {
	Kind   Kind   `json:"kind"`
	Key    string `json:"key"` // of the object or receipt
	Detail string `json:"detail,omitempty"`
}

func (d Damage) String() string {
	if d.Detail == "" {
		return fmt.Sprintf("%s: %s", d.Kind, d.Key)
	}
	return fmt.Sprintf("%s: %s: %s", d.Kind, d.Key, d.Detail)
}

// Report is what a check found.
type Report struct {
	Dataset    task.Dataset       `json:"dataset"`
	Run        string             `json:"run,omitempty"`
	Deep       bool               `json:"deep,omitempty"` // contents were read
	Whole      bool               `json:"whole"`
	Samples    int                `json:"samples"` // that are committed in the range
	Bytes      int64              `json:"bytes"`   // of their files
	Generators []*GeneratorReport `json:"generators"`

	// SameIDs are domains that several generators have, with their names. A sample's id,
	// and the task_id in its metadata, is its domain and its index: it is distinct within
	// a generator, and here the samples of two have the same.
	SameIDs map[string][]string `json:"same_ids,omitempty"`
}

// Add takes the report of one more generator in.
func (r *Report) Add(g *GeneratorReport) {
	for _, domain := range g.Domains {
		var names []string
		for _, other := range r.Generators {
			if slices.Contains(other.Domains, domain) {
				names = append(names, other.Name)
			}
		}
		if names != nil {
			if r.SameIDs == nil {
				r.SameIDs = map[string][]string{}
			}
			r.SameIDs[domain] = append(names, g.Name)
		}
	}
	r.Generators = append(r.Generators, g)
	r.Whole = r.Whole && g.Whole
	r.Samples += g.Samples
	r.Bytes += g.Bytes
}

// GeneratorReport is what a check found of one generator.
type GeneratorReport struct {
	Name       string       `json:"name"`
	Whole      bool         `json:"whole"`
	Expected   int          `json:"expected"`
	Samples    int          `json:"samples"`
	Bytes      int64        `json:"bytes"`
	Missing    []string     `json:"missing,omitempty"`          // ranges, first and last index
	Damaged    map[Kind]int `json:"damaged,omitempty"`          // how much there is of each kind
	Examples   []Damage     `json:"examples,omitempty"`         // the first of each kind
	Distinct   int          `json:"distinct"`                   // puzzles among the samples
	Duplicates int          `json:"duplicates"`                 // samples that are the same puzzle as an earlier one
	First      []Duplicate  `json:"first_duplicates,omitempty"` // of the duplicates
	Chunks     int          `json:"chunks"`                     // receipts of two samples and more
	// of these, the ones that hold the very samples of another
	Alike   int            `json:"chunks_alike,omitempty"`
	Pool    *Pool          `json:"pool,omitempty"`    // how many puzzles the generator has, judged by its duplicates
	Seeds   []int          `json:"seeds"`             // that made it; more than one where messages had their own
	Domains []string       `json:"domains,omitempty"` // what its samples' ids begin with
	Commits map[string]int `json:"commits,omitempty"` // samples by commit of the generator
	Locks   map[string]int `json:"locks,omitempty"`   // samples by lock of its packages
	Resumed int            `json:"resumed,omitempty"` // receipts whose contents an interrupted check had read

	plan GeneratorPlan
}

// Limits of what a report and a plan name. Counts are always whole.
const (
	maxExamples = 10      // of one kind
	maxFirst    = 10      // duplicates
	maxPlanned  = 200_000 // objects to remove, of one generator
)

// ChunksAlike reports whether most chunks hold the very samples of another: the
// generator takes no seed, or does nothing with it.
func (r *GeneratorReport) ChunksAlike() bool { return r.Alike > 0 && 2*r.Alike > r.Chunks }

func (r *GeneratorReport) add(d Damage) {
	if r.Damaged == nil {
		r.Damaged = map[Kind]int{}
	}
	if r.Damaged[d.Kind]++; r.Damaged[d.Kind] <= maxExamples {
		r.Examples = append(r.Examples, d)
	}
}

var hashPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Contradiction says what is wrong with a cell of a dataset's generator in itself, or
// "".
func Contradiction(c *store.Cell, d task.Dataset, generator string) string {
	switch {
	case c.Version != 1:
		return fmt.Sprintf("it is of version %d", c.Version)
	case c.Generator != generator:
		return fmt.Sprintf("it is of generator %q", c.Generator)
	case c.Dataset.String() != d.String():
		return fmt.Sprintf("it is of dataset %s", c.Dataset)
	case c.Key() != d.CellKey(generator, c.Range()):
		return "it is of samples " + c.Range().String()
	}
	for _, r := range c.Receipts {
		if wrong := wrongReceipt(r, c); wrong != "" {
			return wrong
		}
	}
	return ""
}

func wrongReceipt(r store.Receipt, c *store.Cell) string {
	d := c.Dataset
	switch {
	case r.Generator != c.Generator || r.Dataset.String() != d.String():
		return fmt.Sprintf("it has a receipt of generator %q in dataset %s", r.Generator, r.Dataset)
	case r.Epoch < 1 || r.Epoch > c.Epoch:
		return fmt.Sprintf("a receipt is of epoch %d", r.Epoch)
	case task.CheckName(r.Domain) != nil:
		return fmt.Sprintf("its domain %.60q is no name", r.Domain)
	case r.Format != task.Files && r.Format != task.Tar:
		return fmt.Sprintf("its format is %.40q", r.Format)
	case (r.Format == task.Tar) != (r.Shard != nil):
		return "its format and its objects do not fit"
	case len(r.Samples) == 0 || r.Samples[0].Index != r.Start || r.Samples[len(r.Samples)-1].Index != r.End-1 ||
		!c.Range().Contains(r.Range()):
		return "its samples and its range do not fit"
	}
	if r.Shard != nil {
		held, ok := d.ShardRange(r.Shard.Key)
		if !ok || !held.Contains(r.Range()) || !strings.HasPrefix(r.Shard.Key, d.SamplesPrefix(r.Generator)) ||
			!hashPattern.MatchString(r.Shard.SHA256) {
			return "its shard is no shard of its samples"
		}
	}
	for i, s := range r.Samples {
		if i > 0 && s.Index <= r.Samples[i-1].Index || r.Indices != nil && !slices.Contains(r.Indices, s.Index) {
			return fmt.Sprintf("sample %d has no place in it", s.Index)
		}
		if wrong := contradictionOf(s, r.Domain); wrong != "" {
			return fmt.Sprintf("sample %d: %s", s.Index, wrong)
		}
	}
	return ""
}

func contradictionOf(s store.ReceiptSample, domain string) string {
	if s.ID != task.SampleID(domain, s.Index) {
		return fmt.Sprintf("its id is %.60q", s.ID)
	}
	if len(s.Files) == 0 {
		return "it has no files"
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
	for name := range seen {
		for up := path.Dir(name); up != "."; up = path.Dir(up) {
			if seen[up] {
				return fmt.Sprintf("%.60q is a file and a folder", up)
			}
		}
	}
	return ""
}
