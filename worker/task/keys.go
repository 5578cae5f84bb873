package task

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Kinds of objects, the first part of each key. The dataset's name follows, but for manifests, whose names it makes.
const (
	DataKind       = "data/"
	ReceiptKind    = "receipts/"
	FailureKind    = "failures/"
	RunKind        = "runs/"
	FlagKind       = "flags/"
	ManifestKind   = "datasets/"
	InvalidFailure = "_invalid" // stands for the generator of a failure that has no trustworthy range
)

// Dataset is the name of a dataset, and by it of all keys of its objects. The empty name is DefaultDataset.
type Dataset string

// DefaultDataset is the dataset of whoever names none. Its samples have the published keys.
const DefaultDataset Dataset = "v1"

func (d Dataset) String() string { return string(cmp.Or(d, DefaultDataset)) }

// IsZero reports whether the name may be left out where it is written.
func (d Dataset) IsZero() bool { return d.String() == string(DefaultDataset) }

// Next proposes a name for another dataset: v2 after v1.
func (d Dataset) Next() Dataset {
	name := d.String()
	digits := strings.TrimRight(name, "0123456789")
	if n, err := strconv.Atoi(name[len(digits):]); err == nil {
		return Dataset(fmt.Sprint(digits, n+1))
	}
	return Dataset(name + "-2")
}

// Prefix is where the dataset's objects of a kind stand.
func (d Dataset) Prefix(kind string) string { return kind + d.String() + "/" }

// ManifestKey is the key of the dataset's manifest.
func (d Dataset) ManifestKey() string { return ManifestKind + d.String() + ".json" }

// SampleID names a sample: its domain and its global index in 8 digits.
func SampleID(domain string, index int) string { return fmt.Sprintf("%s_%08d", domain, index) }

// SamplesPrefix is where the samples of a generator stand.
func (d Dataset) SamplesPrefix(generator string) string { return d.Prefix(DataKind) + generator + "/" }

// FileKey is the key of one file of a sample in the files format.
func (d Dataset) FileKey(generator, sampleID, file string) string {
	return d.SamplesPrefix(generator) + sampleID + "/" + file
}

// ShardKey is the key of a shard that the holder of a cell writes in an epoch, a name of its own: S3 may carry out what
// a dead holder asked for (CompleteMultipartUpload) minutes later, and must not replace its successor's shard by that.
func (d Dataset) ShardKey(generator string, c Chunk, epoch int) string {
	return fmt.Sprintf("%s%s_%s_e%d.tar.gz", d.SamplesPrefix(generator), generator, c.Name(), epoch)
}

// CellsPrefix is where the cells of a generator stand.
func (d Dataset) CellsPrefix(generator string) string { return d.Prefix(ReceiptKind) + generator + "/" }

// CellKey is the key of one cell of the grid.
func (d Dataset) CellKey(generator string, cell Range) string {
	return d.CellsPrefix(generator) + cell.String() + ".json"
}

// CellRange reads the range back from a cell's key.
func CellRange(key string) (r Range, ok bool) {
	name, ok := strings.CutSuffix(key[strings.LastIndex(key, "/")+1:], ".json")
	if !ok || len(name) != 17 || name[8] != '_' {
		return Range{}, false
	}
	return readRange(name)
}

// readRange reads what Range.String has written, at the beginning of a name.
func readRange(name string) (r Range, ok bool) {
	if len(name) < 17 {
		return Range{}, false
	}
	start, err1 := strconv.Atoi(name[:8])
	last, err2 := strconv.Atoi(name[9:17])
	return Range{start, last + 1}, err1 == nil && err2 == nil && start >= 0 && last >= start
}

// ShardRange reads the range of samples back from a shard's key.
func (d Dataset) ShardRange(key string) (r Range, ok bool) {
	generator, name, _ := strings.Cut(strings.TrimPrefix(key, d.Prefix(DataKind)), "/")
	name, shard := strings.CutSuffix(name, ".tar.gz")
	name, named := strings.CutPrefix(name, generator+"_")
	r, ok = readRange(name)
	return r, shard && named && ok && !strings.Contains(name, "/")
}

// ShardFile is the name of a shard's file where there is one for a chunk: without the epoch it was written in.
func ShardFile(key string) string {
	name := strings.TrimSuffix(key[strings.LastIndexByte(key, '/')+1:], ".tar.gz")
	if at := strings.LastIndex(name, "_e"); at >= 0 && strings.Trim(name[at+2:], "0123456789") == "" {
		name = name[:at]
	}
	return name + ".tar.gz"
}

// FailuresPrefix is where the failure reports of a generator stand.
func (d Dataset) FailuresPrefix(generator string) string {
	return d.Prefix(FailureKind) + generator + "/"
}

// FailureKey is the key of the failure report of a chunk, by its name, in one delivery; without one of what is no task.
func (d Dataset) FailureKey(generator, chunk, messageID string, receives int) string {
	if chunk == "" {
		return fmt.Sprintf("%s%s-%d.json", d.FailuresPrefix(InvalidFailure), SafeName(messageID), receives)
	}
	return fmt.Sprintf("%s%s/%s-%d.json", d.FailuresPrefix(generator), chunk, SafeName(messageID), receives)
}

// CheckFile reports what is wrong with the name of a file that samples must
// have, or nil. A comma separates such names where a list is one string.
func CheckFile(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, `/\,`) {
		return fmt.Errorf("%.60q must be the name of a file, without '/', '\\' and ','", name)
	}
	return nil
}

// RunKey is the key of a run.
func (d Dataset) RunKey(id string) string { return d.Prefix(RunKind) + id + ".json" }

// SafeName keeps an id that was made elsewhere from spelling another key or path.
func SafeName(id string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, id[:min(len(id), 100)])
}
