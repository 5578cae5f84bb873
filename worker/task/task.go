// Package task is the contract between the programs of the pipeline: what a task contains, how a range of samples is
// cut into chunks, where the seeds come from, which keys the objects have and for what causes a chunk can fail.
//
// It is a leaf: it imports the standard library alone, so that worker, CLI and infrastructure can all depend on it.
package task

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"unicode/utf8"
)

// Limits of a task. The first three are the project's own choice; MaxIndex comes from the 8 digits of a sample id.
const (
	MaxIndex         = 100_000_000   // exclusive upper bound of a sample index
	MaxSamples       = 1000          // samples in one task, and indices in one repair task
	MaxSeed          = 1<<31 - 1     // largest seed: what numpy.random.seed and C's int both take
	MaxAttempt       = 1_000_000_000 // largest attempt
	DefaultBatch     = 100           // samples per task
	DefaultChunkSize = 20            // samples per chunk
	DefaultSeed      = 42            // of a dataset
	MaxNameLength    = 128           // characters of a generator's name or a run id
)

// Format is how the samples of a chunk are stored.
type Format string

// The output formats.
const (
	Files Format = "files" // one object per file of a sample
	Tar   Format = "tar"   // one tar.gz, the shard, per chunk
)

// Task is one unit of work: a contiguous range of sample indices of one
// generator or, when Indices is set, the repair of single samples.
//
// A Task that came out of Parse is valid: code that holds one checks nothing again. What it does not say of format and
// chunks its dataset does: see Manifest.Fit.
type Task struct {
	Dataset    Dataset `json:"dataset,omitzero"`
	Generator  string  `json:"type"`
	StartIndex int     `json:"start_index,omitempty"`
	NumSamples int     `json:"num_samples,omitempty"`
	Seed       int     `json:"seed"`
	Format     Format  `json:"output_format,omitempty"` // empty: the dataset's
	RunID      string  `json:"run_id,omitempty"`
	ChunkSize  int     `json:"chunk_size,omitempty"` // 0: the dataset's
	Restore    int     `json:"restore,omitempty"`    // epoch of a receipt: make again what it describes, in its place
	Indices    []int   `json:"indices,omitempty"`
	Attempt    int     `json:"attempt,omitempty"`
	PartSize   int     `json:"part_size,omitempty"` // samples per generator process where a chunk is too much for one
	Options    Options `json:"options,omitempty"`   // of the generator; of a task of no run, nil is the dataset's
}

// InvalidError names the field of a task that is wrong, and why. Without a Field the message cannot be read at all.
type InvalidError struct {
	Field  string
	Reason string
}

func (e *InvalidError) Error() string {
	if e.Field == "" {
		return "invalid task: " + e.Reason
	}
	return fmt.Sprintf("invalid task: %s %s", e.Field, e.Reason)
}

func invalid(field, format string, args ...any) error {
	return &InvalidError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// A name becomes a folder and a part of object keys: it spells no separator, no leading dot and no traversal.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// CheckName reports what is wrong with a generator name or a run id, or nil.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > MaxNameLength:
		return fmt.Errorf("has %d characters, at most %d are allowed", len(name), MaxNameLength)
	case !namePattern.MatchString(name):
		return fmt.Errorf("%.60q may hold only letters, digits, '.', '_' and '-', and must begin with a letter or digit",
			name)
	}
	return nil
}

// Parse reads a task from an SQS message body or an invocation payload. messageID is the SQS message id, or the request
// id of a direct invocation; it stands in for a missing seed, so that a redelivery computes the same data.
//
// Parsing is strict, because a misspelt field would otherwise silently become its default: unknown, repeated and null
// fields, wrong numbers, invalid UTF-8 and trailing text are refused with an *InvalidError that names the field.
func Parse(body []byte, messageID string) (Task, error) {
	fields, err := object(body)
	if err != nil {
		return Task{}, err
	}
	t := Task{Seed: SeedFromID(messageID)}
	readers := map[string]func(json.RawMessage) error{
		"dataset":       func(v json.RawMessage) error { return readString(v, (*string)(&t.Dataset)) },
		"type":          func(v json.RawMessage) error { return readString(v, &t.Generator) },
		"start_index":   func(v json.RawMessage) error { return readInt(v, 0, MaxIndex-1, &t.StartIndex) },
		"num_samples":   func(v json.RawMessage) error { return readInt(v, 1, MaxSamples, &t.NumSamples) },
		"seed":          func(v json.RawMessage) error { return readInt(v, 0, MaxSeed, &t.Seed) },
		"output_format": func(v json.RawMessage) error { return readString(v, (*string)(&t.Format)) },
		"run_id":        func(v json.RawMessage) error { return readString(v, &t.RunID) },
		"chunk_size":    func(v json.RawMessage) error { return readInt(v, 1, MaxSamples, &t.ChunkSize) },
		"restore":       func(v json.RawMessage) error { return readInt(v, 1, MaxSeed, &t.Restore) },
		"indices":       func(v json.RawMessage) error { return readIndices(v, &t.Indices) },
		"part_size":     func(v json.RawMessage) error { return readInt(v, 1, MaxSamples, &t.PartSize) },
		"attempt":       func(v json.RawMessage) error { return readInt(v, 0, MaxAttempt, &t.Attempt) },
		"options":       func(v json.RawMessage) error { return readOptions(v, &t.Options) },
		"overwrite":     only("false", "is not supported: other samples are another dataset"),
		// The Python predecessor's own submitter also wrote these two, always with the value that means nothing.
		"output_bucket": only("null", "is not supported: samples go to the stack's bucket"),
		"dedup":         only("false", "is not supported: ops verify finds duplicates"),
	}
	has := map[string]bool{}
	for _, f := range fields {
		read, known := readers[f.name]
		if !known {
			return Task{}, invalid(fmt.Sprintf("%.60q", f.name), "is not a field of a task")
		}
		if has[f.name] {
			return Task{}, invalid(f.name, "is given twice")
		}
		has[f.name] = true
		if f.name == "seed" && string(f.value) == "null" {
			continue // how the predecessor wrote an absent seed
		}
		if err := read(f.value); err != nil {
			return Task{}, invalid(f.name, "%v", err)
		}
	}
	if !has["type"] {
		return Task{}, invalid("type", "is missing")
	}
	if has["indices"] {
		if has["start_index"] || has["num_samples"] {
			return Task{}, invalid("indices", "stands in place of start_index and num_samples, not beside them")
		}
	} else if !has["num_samples"] {
		return Task{}, invalid("num_samples", "is missing")
	}
	if has["dataset"] && t.Dataset == "" {
		return Task{}, invalid("dataset", "is empty")
	}
	if t.Dataset.IsZero() {
		t.Dataset = "" // as it is sent on
	}
	return t, t.Validate()
}

// Validate checks a task that was built in memory as Parse checks a message. The error is an *InvalidError.
func (t Task) Validate() error {
	if err := CheckName(t.Generator); err != nil {
		return invalid("type", "%v", err)
	}
	if t.RunID != "" {
		if err := CheckName(t.RunID); err != nil {
			return invalid("run_id", "%v", err)
		}
	}
	if err := CheckName(t.Dataset.String()); err != nil {
		return invalid("dataset", "%v", err)
	}
	if t.Format != "" && t.Format != Files && t.Format != Tar {
		return invalid("output_format", "is %.40q, it must be %q or %q", t.Format, Files, Tar)
	}
	if t.Restore < 0 || t.Restore > 0 && t.RunID == "" {
		return invalid("restore", "needs a run_id, which names who has done it")
	}
	if err := t.Options.Check(); err != nil {
		return invalid("options", "are wrong: %v", err)
	}
	if t.Seed < 0 || t.Seed > MaxSeed {
		return invalid("seed", "is %d, it must be from 0 to %d", t.Seed, MaxSeed)
	}
	if t.Attempt < 0 || t.Attempt > MaxAttempt {
		return invalid("attempt", "is %d, it must be from 0 to %d", t.Attempt, MaxAttempt)
	}
	if t.ChunkSize < 0 || t.ChunkSize > MaxSamples {
		return invalid("chunk_size", "is %d, it must be from 1 to %d", t.ChunkSize, MaxSamples)
	}
	if t.PartSize != 0 && (t.PartSize < 0 || t.ChunkSize%t.PartSize != 0) {
		return invalid("part_size", "is %d, it must divide the chunk_size of %d", t.PartSize, t.ChunkSize)
	}
	if t.Indices != nil {
		if t.PartSize != 0 {
			return invalid("part_size", "cannot be given for indices, which are made in one process")
		}
		if len(t.Indices) == 0 || len(t.Indices) > MaxSamples {
			return invalid("indices", "holds %d indices, it must hold 1 to %d", len(t.Indices), MaxSamples)
		}
		for i, index := range t.Indices {
			if index < 0 || index >= MaxIndex {
				return invalid("indices", "holds %d, an index must be from 0 to %d", index, MaxIndex-1)
			}
			if i > 0 && index <= t.Indices[i-1] {
				return invalid("indices", "must be sorted and without repeats, but %d follows %d", index, t.Indices[i-1])
			}
		}
		return nil
	}
	if t.NumSamples < 1 || t.NumSamples > MaxSamples {
		return invalid("num_samples", "is %d, it must be from 1 to %d", t.NumSamples, MaxSamples)
	}
	if t.StartIndex < 0 || t.StartIndex > MaxIndex-t.NumSamples {
		return invalid("start_index", "is %d, the range must lie between 0 and %d", t.StartIndex, MaxIndex-1)
	}
	return nil
}

// Range returns the indices the task covers. For a repair task it is the smallest range that holds them all.
func (t Task) Range() Range {
	if t.Indices != nil {
		return Range{t.Indices[0], t.Indices[len(t.Indices)-1] + 1}
	}
	return Range{t.StartIndex, t.StartIndex + t.NumSamples}
}

// Count returns the number of samples the task asks for.
func (t Task) Count() int {
	if t.Indices != nil {
		return len(t.Indices)
	}
	return t.NumSamples
}

// Body returns the task as an SQS message body.
func (t Task) Body() string {
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // strings and ints, and lists and maps of them, always marshal
	}
	return string(b)
}

// Group returns the message group of a run's tasks, so that a queue serves runs in turn. It is nil for tasks of no run.
func Group(run string) *string {
	if run == "" {
		return nil
	}
	return &run
}

type field struct {
	name  string
	value json.RawMessage
}

// object splits a JSON object into its fields in order. encoding/json alone would match field names without regard to
// case, let the last of two equal names win and replace invalid UTF-8, all of which would change a task.
func object(body []byte) ([]field, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, invalid("", "the message is empty")
	}
	if !utf8.Valid(body) {
		return nil, invalid("", "the message is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	begin, err := d.Token()
	if err == nil && begin != json.Delim('{') {
		return nil, invalid("", "the message is not a JSON object")
	}
	var fields []field
	for err == nil && d.More() {
		var name json.Token
		var value json.RawMessage
		if name, err = d.Token(); err == nil {
			err = d.Decode(&value)
			fields = append(fields, field{name.(string), value})
		}
	}
	if err == nil {
		_, err = d.Token()
	}
	if err != nil {
		return nil, invalid("", "the message is not JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, invalid("", "something follows the JSON object")
	}
	return fields, nil
}

func only(value, reason string) func(json.RawMessage) error {
	return func(v json.RawMessage) error {
		if s := string(v); s != value && s != "null" {
			return errors.New(reason)
		}
		return nil
	}
}

func readString(v json.RawMessage, to *string) error {
	if len(v) == 0 || v[0] != '"' {
		return fmt.Errorf("is %.40s, it must be a string", v)
	}
	return json.Unmarshal(v, to)
}

func readInt(v json.RawMessage, low, high int, to *int) error {
	n, err := strconv.Atoi(string(v))
	switch {
	case errors.Is(err, strconv.ErrRange):
		return fmt.Errorf("is %.40s, it must be from %d to %d", v, low, high)
	case err != nil:
		return fmt.Errorf("is %.40s, it must be an integer", v)
	case n < low || n > high:
		return fmt.Errorf("is %d, it must be from %d to %d", n, low, high)
	}
	*to = n
	return nil
}

func readIndices(v json.RawMessage, to *[]int) error {
	var list []json.RawMessage
	if len(v) == 0 || v[0] != '[' {
		return fmt.Errorf("is %.40s, it must be a list of integers", v)
	}
	if err := json.Unmarshal(v, &list); err != nil {
		return err
	}
	*to = make([]int, len(list))
	for i, raw := range list {
		if err := readInt(raw, 0, MaxIndex-1, &(*to)[i]); err != nil {
			return fmt.Errorf("holds a value that %w", err)
		}
	}
	return nil
}

// Seed returns the seed of one chunk: the first 31 bits of a SHA-256 over
// generator (Options.Namespace if it has options), run seed, chunk size, number of the
// chunk on the grid and attempt. Nothing of it depends on how samples are batched into tasks.
func Seed(generator string, runSeed, chunkSize, chunk, attempt int) int {
	return hash31("chunk", generator, runSeed, chunkSize, chunk, attempt)
}

// RepairSeed returns the seed of a repair task.
func RepairSeed(generator string, runSeed, attempt int, indices []int) int {
	return hash31("repair", generator, append([]int{runSeed, attempt}, indices...)...)
}

// SeedFromID derives a run seed from a message or request id.
func SeedFromID(id string) int { return hash31("message", id) }

// hash31 hashes strings with their length in front and numbers as 8 bytes: no two argument lists have one encoding.
func hash31(kind, name string, numbers ...int) int {
	h := sha256.New()
	for _, s := range []string{kind, name} {
		_ = binary.Write(h, binary.BigEndian, uint64(len(s)))
		_, _ = io.WriteString(h, s)
	}
	for _, n := range numbers {
		_ = binary.Write(h, binary.BigEndian, int64(n))
	}
	return int(binary.BigEndian.Uint32(h.Sum(nil)) >> 1)
}

// IndicesHash is the short name of a list of indices in the keys of a repair task's objects: 16 hexadecimal digits.
func IndicesHash(indices []int) string {
	h := sha256.New()
	for _, n := range indices {
		_ = binary.Write(h, binary.BigEndian, int64(n))
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}
