// Package export writes a dataset in the forms that trainers, hubs and evaluators open.
//
// The plan (Plan) is made first, from the receipts alone: which samples are exported, and how they are cut into parts.
// A part is a deterministic slice of the rows, and makes one file or one group of files. Parts are written side by
// side, each from its own stream of rows, and none is written twice: a part's record is stored after its files.
package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"iter"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
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
	Hints       string `json:"hints"`    // keys of ops/inspect with blanks between them, among the samples of the export
	Fingerprint string `json:"fingerprint"`
	Seed        int    `json:"seed"` // that the generator was given
	Attempt     int    `json:"attempt"`
	Commit      string `json:"commit"`
	Lock        string `json:"lock"`
	Python      string `json:"python"`
	Platform    string `json:"platform"`
	Options     string `json:"options,omitempty"` // of the generator: difficulty=3 fps=8
	Files       []File `json:"files"`             // all, sorted by name: prompt.txt, rubric.txt and metadata.json, too
}

// File returns the file of a name, or nil.
func (r *Row) File(name string) *File {
	return r.find(func(other string) bool { return other == name })
}

func (r *Row) find(is func(name string) bool) *File {
	if i := slices.IndexFunc(r.Files, func(f File) bool { return is(f.Name) }); i >= 0 {
		return &r.Files[i]
	}
	return nil
}

// bytes is the size of the row's files.
func (r *Row) bytes() (n int64) {
	for _, f := range r.Files {
		n += f.Size
	}
	return n
}

// Video returns the ground truth video, or nil.
func (r *Row) Video() *File { return r.find(sample.IsGroundTruth) }

// File is one file of a sample, compared with the receipt's hash. It can be read until the next row is taken.
type File struct {
	Name   string `json:"name"`   // path in the sample: ground_truth.mp4, frames/0.png
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // hexadecimal
	Media  *Media `json:"media,omitempty"`
	// SHA-256 of the file as it is in the bucket; empty unless --video has encoded it again
	Original string `json:"original,omitempty"`

	text   []byte     // the file, unless it is large
	buffer *[]byte    // that text is in, if it is one of buffers
	large  *temporary // has the file otherwise
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

// Bytes returns the file, which nobody may change. Large ones (largeFile) are on the disk until then.
func (f *File) Bytes() ([]byte, error) {
	if f.large == nil {
		return f.text, nil
	}
	text := make([]byte, f.Size)
	_, err := io.ReadFull(f.Open(), text)
	return text, err
}

func sumOf(text []byte) string {
	hash := sha256.Sum256(text)
	return hex.EncodeToString(hash[:])
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

// Format is one form of an export. Names of its files depend on the plan alone, their bytes on the rows alone.
type Format interface {
	Name() string
	// Cut is asked with --shard-size.
	Cut(shard int64) Cut
	// Check refuses what the format cannot have, before anything is written.
	Check(p *Plan) error
	// Part writes the files of a part, other goroutines those of others. An error that rows yields has to be returned.
	Part(ctx context.Context, p Part, rows iter.Seq2[*Row, error], out *Output) error
	// Finish writes what all parts have in common, after the last of them.
	Finish(ctx context.Context, p *Plan, out *Output) error
}

// Written is a file of the export.
type Written struct {
	Name   string `json:"name"`   // path in the export
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // hexadecimal
}

// Plan is what is exported: the same for the same dataset and options, whoever makes it and however parallel it is.
type Plan struct {
	Dataset    string       `json:"dataset"`
	Format     string       `json:"format"`
	Seed       int          `json:"seed"` // of the dataset
	Options    Options      `json:"options"`
	Splits     []string     `json:"splits"` // in the order of --split; train alone by default
	Generators []*Generator `json:"generators"`
	// samples that were asked for and are not there, by generator: only with --partial
	Missing map[string]int `json:"missing,omitempty"`
	Flagged *Flagged       `json:"flagged,omitempty"` // that were left out: only with --without flagged
	Parts   []Part         `json:"parts"`
}

// WithoutFlagged is the option that leaves flagged samples out.
const WithoutFlagged = "flagged"

// Flagged are the samples that were left out because they are flagged.
type Flagged struct {
	Samples int    `json:"samples"`
	Digest  string `json:"digest"` // SHA-256 of which samples they were, with their files: equal for equal flags
}

// Generator is what the receipts say of the samples of a generator that are exported.
type Generator struct {
	Name       string         `json:"name"`
	Licence    string         `json:"licence,omitempty"`    // SPDX identifier, as catalogued
	Repository string         `json:"repository,omitempty"` // on GitHub: owner/name
	Category   string         `json:"category,omitempty"`   // one of generator.Categories
	Key        string         `json:"key"`                  // first part of its rows' keys
	Domains    []string       `json:"domains"`
	Rows       int            `json:"rows"`
	Files      int            `json:"files"`
	Bytes      int64          `json:"bytes"`  // of the files as they are in the bucket
	Largest    int64          `json:"-"`      // bytes of the largest sample
	Splits     map[string]int `json:"splits"` // rows by split
	// how many rows have a file; those in sub-folders are counted as frames/*.png
	Names map[string]int `json:"names"`
	Media map[string]int `json:"media"` // videos by "512x512 16 fps mpeg4 yuv420p"
	// those that browsers do not play; by name if nothing else is known
	Unplayable   map[string]int `json:"-"`
	FewestFrames int            `json:"fewest_frames,omitempty"` // of a video
	MostFrames   int            `json:"most_frames,omitempty"`
	Commits      map[string]int `json:"commits"`           // rows by commit; "" is not known
	Locks        map[string]int `json:"locks"`             // rows by hash
	Platforms    map[string]int `json:"platforms"`         // rows by "linux-x86_64, Python 3.11.2"
	Images       map[string]int `json:"images,omitempty"`  // rows by digest of the worker's image, if it had one
	Seeds        int            `json:"seeds"`             // how many seeds its processes were given
	Distinct     int            `json:"distinct"`          // fingerprints
	Command      []string       `json:"command"`           // of the first receipt
	Asked        int            `json:"asked"`             // samples that were asked for
	Missing      []string       `json:"missing,omitempty"` // ranges that were asked for and are not there

	marks []inspect.Marks // of its rows
}

// Options choose what is exported.
type Options struct {
	Generators   []string `json:"generators,omitempty"` // none: all that the dataset has
	Split        string   `json:"split,omitempty"`
	Where        string   `json:"where,omitempty"`
	Without      string   `json:"without,omitempty"`       // WithoutFlagged
	PerGenerator int      `json:"per_generator,omitempty"` // at most so many of each
	ShardSize    int64    `json:"shard_size,omitempty"`    // bytes
	Partial      bool     `json:"partial,omitempty"`
	Video        string   `json:"video,omitempty"`
	Encoder      string   `json:"encoder,omitempty"` // of the videos: another one may give other bytes
}

// rowColumn is a column of what is said of a row beside its pictures and videos.
type rowColumn struct {
	Column
	cell func(*Row) any
}

var rowColumns = []rowColumn{
	{Column{"key", Text}, func(r *Row) any { return r.Key }},
	{Column{"generator", Label}, func(r *Row) any { return r.Generator }},
	{Column{"domain", Label}, func(r *Row) any { return r.Domain }},
	{Column{"id", Text}, func(r *Row) any { return r.ID }},
	{Column{"index", Int}, func(r *Row) any { return r.Index }},
	{Column{"split", Label}, func(r *Row) any { return r.Split }},
	{Column{"prompt", Text}, func(r *Row) any { return r.Prompt }},
	{Column{"rubric", Text}, func(r *Row) any { return r.Rubric }},
	{Column{"metadata", Text}, func(r *Row) any { return r.Metadata }},
	{Column{"width", Int}, media(func(m *Media) any { return known(m.Width) })},
	{Column{"height", Int}, media(func(m *Media) any { return known(m.Height) })},
	{Column{"frames", Int}, media(func(m *Media) any { return known(m.Frames) })},
	{Column{"fps", Float}, media(func(m *Media) any { return known(m.FPS) })},
	{Column{"seconds", Float}, media(func(m *Media) any { return known(m.Seconds) })},
	{Column{"codec", Label}, media(func(m *Media) any { return known(m.Codec) })},
	{Column{"pixel_format", Label}, media(func(m *Media) any { return known(m.PixelFormat) })},
	{Column{"hints", Label}, func(r *Row) any { return r.Hints }},
	{Column{"fingerprint", Text}, func(r *Row) any { return r.Fingerprint }},
	{Column{"seed", Int}, func(r *Row) any { return r.Seed }},
	{Column{"attempt", Int}, func(r *Row) any { return r.Attempt }},
	{Column{"commit", Label}, func(r *Row) any { return r.Commit }},
	{Column{"lock", Label}, func(r *Row) any { return r.Lock }},
	{Column{"python", Label}, func(r *Row) any { return r.Python }},
	{Column{"platform", Label}, func(r *Row) any { return r.Platform }},
	{Column{"options", Label}, func(r *Row) any { return known(r.Options) }},
	{Column{"files", Hashes}, func(r *Row) any { return r.Files }},
}

// media returns the cell of a fact of the row's video; it is null if there is no video.
func media(fact func(*Media) any) func(*Row) any {
	return func(r *Row) any {
		if v := r.Video(); v != nil && v.Media != nil {
			return fact(v.Media)
		}
		return nil
	}
}

// known returns null for what is not known.
func known[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// RowColumns returns the columns that every table of samples can have: what rows say beside their pictures and videos.
func RowColumns() []Column { return columnsOf(rowColumns) }

func columnsOf(list []rowColumn) (columns []Column) {
	for _, c := range list {
		columns = append(columns, c.Column)
	}
	return columns
}

// Cell returns what a row has in one of RowColumns.
func (r *Row) Cell(column string) any {
	for _, c := range rowColumns {
		if c.Name == column {
			return c.cell(r)
		}
	}
	return nil
}
