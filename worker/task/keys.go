package task

import (
	"fmt"
	"strconv"
	"strings"
)

// Prefixes of the objects in the bucket. The version is part of each, so that
// another layout can live beside this one.
const (
	DataPrefix     = "data/v1/"
	ClaimPrefix    = "claims/v1/"
	ReceiptPrefix  = "receipts/v1/"
	FailurePrefix  = "failures/v1/"
	RunPrefix      = "runs/v1/"
	InvalidFailure = "_invalid" // stands for the generator of a failure that has no trustworthy range
)

// SampleID names a sample: its domain and its global index in 8 digits.
func SampleID(domain string, index int) string { return fmt.Sprintf("%s_%08d", domain, index) }

// FileKey is the key of one file of a sample in the files format.
func FileKey(generator, sampleID, file string) string {
	return DataPrefix + generator + "/" + sampleID + "/" + file
}

// ShardKey is the key of a chunk's shard in the tar format, as the holder of claim n
// writes it. Each holder has a name of its own: S3 may carry out what a dead one had
// asked for (CompleteMultipartUpload) minutes later, and must not replace its
// successor's shard by that. Claims of cells that overlap have different numbers.
func ShardKey(generator string, c Chunk, n int) string {
	return fmt.Sprintf("%s%d.tar.gz", ShardPrefix(generator, c), n)
}

// ShardPrefix is how the keys of all shards of a chunk begin.
func ShardPrefix(generator string, c Chunk) string {
	return DataPrefix + generator + "/" + generator + "_" + c.Name() + "_c"
}

// ClaimsPrefix is where the claims of a cell stand; the key of claim n follows.
func ClaimsPrefix(generator string, cell Range) string {
	return ClaimPrefix + generator + "/" + cell.String() + "/"
}

// ClaimKey is the key of claim n of a cell.
func ClaimKey(generator string, cell Range, n int) string {
	return fmt.Sprintf("%s%08d.json", ClaimsPrefix(generator, cell), n)
}

// ClaimNumber reads n back from a claim's key.
func ClaimNumber(key string) (int, bool) {
	name, ok := strings.CutSuffix(key[strings.LastIndex(key, "/")+1:], ".json")
	n, err := strconv.Atoi(name)
	return n, ok && err == nil && n > 0
}

// ClaimRange reads the cell, or the range of a repair, back from where its claims
// stand.
func ClaimRange(place string) (r Range, repair, ok bool) {
	return ReceiptRange(strings.TrimSuffix(place, "/") + ".json")
}

// ReceiptsPrefix is where the receipts of a generator stand.
func ReceiptsPrefix(generator string) string { return ReceiptPrefix + generator + "/" }

// ReceiptKey is the key of a chunk's receipt.
func ReceiptKey(generator string, c Chunk) string {
	return ReceiptsPrefix(generator) + c.Name() + ".json"
}

// ReceiptRange reads the range back from a receipt's key. Repair says that the
// receipt is of a repair task and may hold only some indices of the range.
func ReceiptRange(key string) (r Range, repair, ok bool) {
	name, found := strings.CutSuffix(key[strings.LastIndex(key, "/")+1:], ".json")
	parts := strings.Split(name, "_")
	if !found || len(parts) < 2 || len(parts[0]) != 8 || len(parts[1]) != 8 {
		return Range{}, false, false
	}
	start, err1 := strconv.Atoi(parts[0])
	last, err2 := strconv.Atoi(parts[1])
	if err1 != nil || err2 != nil || last < start {
		return Range{}, false, false
	}
	return Range{start, last + 1}, len(parts) > 2, true
}

// ShardRange reads the range of samples back from a shard's key.
func ShardRange(key string) (r Range, ok bool) {
	parts := strings.Split(strings.TrimPrefix(key, DataPrefix), "/")
	if len(parts) != 2 {
		return Range{}, false
	}
	name, shard := strings.CutSuffix(parts[1], ".tar.gz")
	name, named := strings.CutPrefix(name, parts[0]+"_")
	r, _, ok = ReceiptRange(name + ".json")
	return r, shard && named && ok
}

// ShardFile is the name of a shard's file where there is one for a chunk: without the
// claim it was written under.
func ShardFile(key string) string {
	name := strings.TrimSuffix(key[strings.LastIndexByte(key, '/')+1:], ".tar.gz")
	if at := strings.LastIndex(name, "_c"); at >= 0 && strings.Trim(name[at+2:], "0123456789") == "" {
		name = name[:at]
	}
	return name + ".tar.gz"
}

// FailuresPrefix is where the failure reports of a generator stand.
func FailuresPrefix(generator string) string { return FailurePrefix + generator + "/" }

// FailureKey is the key of the failure report of one chunk in one delivery.
func FailureKey(generator string, c Chunk, messageID string, receives int) string {
	return fmt.Sprintf("%s%s/%s-%d.json", FailuresPrefix(generator), c.Name(), SafeName(messageID), receives)
}

// InvalidFailureKey is the key of the report of a message that is no task.
func InvalidFailureKey(messageID string, receives int) string {
	return fmt.Sprintf("%s%s/%s-%d.json", FailurePrefix, InvalidFailure, SafeName(messageID), receives)
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
func RunKey(id string) string { return RunPrefix + id + ".json" }

// SafeName keeps an id that somebody else made from spelling another key or path.
func SafeName(id string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, id[:min(len(id), 100)])
}
