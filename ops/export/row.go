// Package export writes a dataset in the forms that trainers, hubs and evaluators open.
//
// The plan (Plan) is made first, from the receipts alone: which samples are exported, and
// how they are cut into parts. A part is a deterministic slice of the rows, and makes one
// file or one group of files. Parts are written side by side, each from its own stream of
// rows, and none is written twice: a part's record is stored after its files.
package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"iter"
	"os"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Row is one sample: what its receipt and its text files say, and its files.
type Row struct {
	Key         string `json:"key"` // <generator>_<index as 8 digits>, without a dot; unique in an export
	Generator   string `json:"generator"`
	Domain      string `json:"domain"`
	ID          string `json:"id"` // <domain>_<index as 8 digits>; two generators may have the same
	Index       int    `json:"index"`
	Split       string `json:"split"`
	Prompt      string `json:"prompt"`   // prompt.txt, byte for byte
	Rubric      string `json:"rubric"`   // rubric.txt; empty if there is none
	Metadata    string `json:"metadata"` // metadata.json, byte for byte; empty if there is none
	Fingerprint string `json:"fingerprint"`
	Seed        int    `json:"seed"` // that the generator was given
	Attempt     int    `json:"attempt"`
	Commit      string `json:"commit"`
	Lock        string `json:"lock"`
	Python      string `json:"python"`
	Platform    string `json:"platform"`
	Files       []File `json:"files"` // sorted by name, all of them: prompt.txt, rubric.txt and metadata.json, too
}

// File returns the file of a name, or nil.
func (r *Row) File(name string) *File {
	for i := range r.Files {
		if r.Files[i].Name == name {
			return &r.Files[i]
		}
	}
	return nil
}

// Video returns the ground truth video, or nil.
func (r *Row) Video() *File {
	for i := range r.Files {
		if sample.IsGroundTruth(r.Files[i].Name) {
			return &r.Files[i]
		}
	}
	return nil
}

// File is one file of a sample. Its bytes have been compared with the receipt's hash. They
// can be read until the next row is taken.
type File struct {
	Name   string `json:"name"`   // path in the sample: ground_truth.mp4, frames/0.png
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // hexadecimal
	Media  *Media `json:"media,omitempty"`
	// SHA-256 of the file as it is in the bucket; empty unless --video has encoded it again
	Original string `json:"original,omitempty"`

	text  []byte   // the file, unless it is large
	large *os.File // a temporary one, without a name
}

// Media are the facts of a picture or video. What is not known is zero.
type Media = sample.Media

// NewFile returns a file with bytes of its own: one that was encoded again.
func NewFile(name string, text []byte, media *Media) File {
	return File{Name: name, Size: int64(len(text)), SHA256: sumOf(text), Media: media, text: text}
}

// Open returns a reader of the file from its beginning. In rows of Output.Rows it is empty.
func (f *File) Open() io.Reader {
	if f.large != nil {
		return io.NewSectionReader(f.large, 0, f.Size)
	}
	return bytes.NewReader(f.text)
}

// Bytes returns the file, which nobody may change. Large ones (largeFile) are on the disk
// until then.
func (f *File) Bytes() ([]byte, error) {
	if f.large == nil {
		return f.text, nil
	}
	return io.ReadAll(f.Open())
}

func sumOf(text []byte) string {
	hash := sha256.Sum256(text)
	return hex.EncodeToString(hash[:])
}

func (f *File) release() {
	if f.large != nil {
		f.large.Close()
	}
}

// Part is a slice of the rows, in the order of their indices.
type Part struct {
	Name      string       `json:"name"` // of its record: <generator>-<split>-<number>
	Generator string       `json:"generator"`
	Split     string       `json:"split"`  // empty: the part has the rows of all splits
	Number    int          `json:"number"` // among those of its generator and split, from 0
	Of        int          `json:"of"`     // how many those are
	Rows      int          `json:"rows"`
	Bytes     int64        `json:"bytes"`  // of all files of its rows
	Digest    string       `json:"digest"` // SHA-256 of what the receipts say of its rows
	Ranges    []task.Range `json:"-"`      // indices of its samples
}

// Cut says how rows are cut into parts. No part has rows of two generators.
type Cut struct {
	Bytes   int64 // a part ends before it has more bytes than that; 0: one part for each generator (and split)
	BySplit bool  // no part has rows of two splits
	Memory  int64 // bytes that writing a part takes, beside the rows that are read ahead
	Rows    bool  // Finish asks for Output.Rows
}

// Format is one form of an export. Its methods write files through an Output, with names
// that depend on the plan alone and bytes that depend on the rows alone.
type Format interface {
	Name() string
	// Cut is asked with --shard-size.
	Cut(shard int64) Cut
	// Check refuses what the format cannot have, before anything is written.
	Check(p *Plan) error
	// Part writes the files of a part. It is called from several goroutines, for other
	// parts. An error that rows yields has to be returned.
	Part(ctx context.Context, p Part, rows iter.Seq2[*Row, error], out Output) error
	// Finish writes what all parts have in common, after the last of them.
	Finish(ctx context.Context, p *Plan, out Output) error
}

// Output is where a format writes.
type Output interface {
	// Create writes one file, which has its name only once write has returned nil. The size is
	// an estimate in bytes.
	Create(ctx context.Context, name string, size int64, write func(io.Writer) error) error
	// Copy writes a file of a sample as it is.
	Copy(ctx context.Context, name string, f *File) error
	// Rows returns all rows of the export without the bytes of their files, part by part,
	// as Part was given them. Only for Finish.
	Rows(ctx context.Context) iter.Seq2[*Row, error]
	// Files returns the files that have been written, in the order of the plan; there may be
	// millions. Only for Finish.
	Files(ctx context.Context) iter.Seq2[Written, error]
	// Sample reads some rows of a generator, the first ones, with their files. Only for Finish.
	Sample(ctx context.Context, generator string, n int) iter.Seq2[*Row, error]
}

// Written is a file of the export.
type Written struct {
	Name   string `json:"name"`   // path in the export
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // hexadecimal
}

// Plan is what is exported. The same dataset and options always give the same plan,
// whoever makes it and however parallel the export is.
type Plan struct {
	Dataset    string       `json:"dataset"`
	Format     string       `json:"format"`
	Seed       int          `json:"seed"` // of the dataset
	Options    Options      `json:"options"`
	Splits     []string     `json:"splits"` // in the order of --split; train alone by default
	Generators []*Generator `json:"generators"`
	// samples that were asked for and are not there, by generator: only with --partial
	Missing map[string]int `json:"missing,omitempty"`
	Parts   []Part         `json:"parts"`
}

// Generator is what the receipts say of the samples of a generator that are exported.
type Generator struct {
	Name       string         `json:"name"`
	Licence    string         `json:"licence,omitempty"`    // SPDX identifier, as catalogued
	Repository string         `json:"repository,omitempty"` // on GitHub: owner/name
	Key        string         `json:"key"`                  // first part of its rows' keys
	Domains    []string       `json:"domains"`
	Rows       int            `json:"rows"`
	Files      int            `json:"files"`
	Bytes      int64          `json:"bytes"`  // of the files as they are in the bucket
	Splits     map[string]int `json:"splits"` // rows by split
	// how many rows have a file; those in sub-folders are counted as frames/*.png
	Names        map[string]int `json:"names"`
	Media        map[string]int `json:"media"`                   // videos by "512x512 16 fps mpeg4 yuv420p"
	FewestFrames int            `json:"fewest_frames,omitempty"` // of a video
	MostFrames   int            `json:"most_frames,omitempty"`
	Commits      map[string]int `json:"commits"`           // rows by commit; "" is not known
	Locks        map[string]int `json:"locks"`             // rows by hash
	Platforms    map[string]int `json:"platforms"`         // rows by "linux-x86_64, Python 3.11.2"
	Seeds        int            `json:"seeds"`             // how many seeds its processes were given
	Distinct     int            `json:"distinct"`          // fingerprints
	Command      []string       `json:"command"`           // of the first receipt
	Asked        int            `json:"asked"`             // samples that were asked for
	Missing      []string       `json:"missing,omitempty"` // ranges that were asked for and are not there
}

// Options choose what is exported.
type Options struct {
	Generators   []string `json:"generators,omitempty"` // none: all that the dataset has
	Split        string   `json:"split,omitempty"`
	Where        string   `json:"where,omitempty"`
	PerGenerator int      `json:"per_generator,omitempty"` // at most so many of each
	ShardSize    int64    `json:"shard_size,omitempty"`    // bytes
	Partial      bool     `json:"partial,omitempty"`
	Video        string   `json:"video,omitempty"`
	Encoder      string   `json:"encoder,omitempty"` // of the videos: another one may give other bytes
}
