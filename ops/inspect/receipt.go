package inspect

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"path"
	"strconv"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// The kinds of hints that receipts show.
const (
	SameVideo      Kind = "same-video"
	SameFirst      Kind = "same-first-frame"
	SameFinal      Kind = "same-final-frame"
	Still          Kind = "still"
	OneColour      Kind = "one-colour"
	VideoSize      Kind = "video-size"
	Length         Kind = "length"
	Unplayable     Kind = "unplayable"
	PromptEncoding Kind = "prompt-encoding"
	PromptEmpty    Kind = "prompt-empty"
	SamePrompt     Kind = "same-prompt"
	PromptAnswer   Kind = "prompt-names-answer"
	NoRubric       Kind = "no-rubric"
	Files          Kind = "files"
)

const (
	firstFrame = "first_frame.png"
	finalFrame = "final_frame.png"
	promptFile = "prompt.txt"
	rubricFile = "rubric.txt"
	anyVideo   = "ground_truth.*"
)

var receiptKinds = []About{
	{Kind: SameVideo, Text: "other samples have the same video", File: anyVideo},
	{Kind: SameFirst, Text: "other samples have the same first frame", File: firstFrame},
	{Kind: SameFinal, Text: "other samples have the same final frame", File: finalFrame},
	{Kind: Still, Text: "first and final frame are the same picture", File: finalFrame},
	{Kind: OneColour, Text: "a picture has one colour"},
	{Kind: VideoSize, Text: "the video has another size than its first frame", File: anyVideo},
	{Kind: Length, Text: "frames or rate of the video differ from nearly all samples", File: anyVideo},
	{Kind: Unplayable, Text: "browsers do not play the video", File: anyVideo},
	{Kind: PromptEncoding, Text: "the prompt is not UTF-8", File: promptFile},
	{Kind: PromptEmpty, Text: "the prompt is empty but for a byte order mark", File: promptFile},
	{Kind: SamePrompt, Text: "all samples have the same prompt", File: promptFile},
	{Kind: PromptAnswer, Text: "the prompt names a file with the answer", File: promptFile},
	{Kind: NoRubric, Text: "there is no rubric, other samples have one", File: rubricFile},
	{Kind: Files, Text: "its files differ from those of nearly all samples"},
}

// Marks are what of a sample its hints are found from: 56 bytes without a pointer.
type Marks struct {
	alone  Set // kinds of the hints that the sample alone shows
	video  uint64
	first  uint64
	final  uint64
	prompt uint64 // these are beginnings of SHA-256; 0 if there is no such file
	length length
	files  uint32 // hash of the names
	rubric bool
}

// length is the length of a video, as far as it should be that of all.
type length struct {
	frames int32
	fps    float32
}

// MarksOf returns the marks of a sample as its receipt has it.
func MarksOf(s *sample.Sample) Marks { return marksOf(s, alone(s)) }

func marksOf(s *sample.Sample, hints []Hint) (m Marks) {
	m.alone = SetOf(hints)
	names := fnv.New32a()
	for i := range s.Files {
		f := &s.Files[i]
		if !strings.Contains(f.Name, "/") { // a folder of frames has as many as there are
			_, _ = names.Write([]byte(f.Name + "/"))
		}
		hash, _ := strconv.ParseUint(f.SHA256[:min(len(f.SHA256), 16)], 16, 64)
		switch {
		case f.Name == firstFrame:
			m.first = hash
		case f.Name == finalFrame:
			m.final = hash
		case f.Name == promptFile:
			m.prompt = hash
		case f.Name == rubricFile:
			m.rubric = true
		case sample.IsGroundTruth(f.Name) && m.video == 0:
			m.video, m.length = hash, length{int32(f.Media.Frames), float32(f.Media.FPS)}
		}
	}
	m.files = names.Sum32()
	return m
}

// alone are the hints that a sample shows without the others of its generator.
func alone(s *sample.Sample) (list []Hint) {
	add := func(k Kind, f *sample.File, number float64, format string, args ...any) {
		list = append(list, Hint{k, f.Name, number, fmt.Sprintf(format, args...)})
	}
	var first, final, video *sample.File
	for i := range s.Files {
		f := &s.Files[i]
		switch {
		case f.Name == firstFrame:
			first = f
		case f.Name == finalFrame:
			final = f
		case sample.IsGroundTruth(f.Name) && video == nil:
			video = f
		case f.Name == promptFile:
			if f.Text.Invalid {
				add(PromptEncoding, f, float64(f.Size), "%d bytes that are not UTF-8", f.Size)
			}
			if f.Text.Blank {
				add(PromptEmpty, f, float64(f.Size), "%d bytes, a byte order mark and blanks", f.Size)
			}
			if f.Text.Answer {
				add(PromptAnswer, f, 1, "it names final_frame or ground_truth")
			}
		}
		if f.Media.Colour != "" {
			add(OneColour, f, 1, "all its pixels are %s", f.Media.Colour)
		}
	}
	if first != nil && final != nil && first.SHA256 == final.SHA256 {
		add(Still, final, 2, "it is the same file as %s", firstFrame)
	}
	if video == nil {
		return list
	}
	if !Plays(video.Name, video.Media) {
		what := cmp.Or(strings.TrimSpace(video.Media.Codec+" "+video.Media.PixelFormat), "an unknown codec")
		add(Unplayable, video, 1, "%s in %s", what, path.Ext(video.Name))
	}
	if first != nil && first.Media.Width > 0 && video.Media.Width > 0 &&
		(first.Media.Width != video.Media.Width || first.Media.Height != video.Media.Height) {
		of, is := first.Media, video.Media
		add(VideoSize, video, float64(is.Width*is.Height)/float64(max(1, of.Width*of.Height)), "%dx%d, and %s has %dx%d",
			is.Width, is.Height, firstFrame, of.Width, of.Height)
	}
	return list
}

// sharedFiles are the kinds of files that should differ between samples.
var sharedFiles = []struct {
	kind Kind
	file string
	hash func(*Marks) uint64
}{
	{SameVideo, anyVideo, func(m *Marks) uint64 { return m.video }},
	{SameFirst, firstFrame, func(m *Marks) uint64 { return m.first }},
	{SameFinal, finalFrame, func(m *Marks) uint64 { return m.final }},
	{SamePrompt, promptFile, func(m *Marks) uint64 { return m.prompt }},
}

// kinds are those of among.
func (r *Rule) kinds(m *Marks) (kinds Set) {
	for _, of := range sharedFiles {
		n := r.shared[shared{of.kind, of.hash(m)}]
		if n > 1 && (of.kind != SamePrompt || int(n) == r.samples) { // a prompt may fit several puzzles
			kinds |= of.kind.Set()
		}
	}
	if m.video != 0 && r.length != (length{}) && m.length != r.length {
		kinds |= Length.Set()
	}
	if !m.rubric && r.rubrics > 0 {
		kinds |= NoRubric.Set()
	}
	if r.files != 0 && m.files != r.files {
		kinds |= Files.Set()
	}
	return kinds
}

// among are the hints that a sample shows among the others.
func (r *Rule) among(m *Marks) (list []Hint) {
	kinds := r.kinds(m)
	has := func(k Kind) bool { return kinds&k.Set() != 0 }
	for _, of := range sharedFiles {
		if has(of.kind) {
			n := r.shared[shared{of.kind, of.hash(m)}]
			list = append(list, Hint{of.kind, of.file, float64(n), fmt.Sprintf("%d of %d samples have it", n, r.samples)})
		}
	}
	if has(Length) {
		list = append(list, Hint{Length, anyVideo, float64(m.length.frames), fmt.Sprintf("%s, nearly all have %s",
			m.length, r.length)})
	}
	if has(NoRubric) {
		list = append(list, Hint{NoRubric, rubricFile, float64(r.rubrics), fmt.Sprintf("%d of %d samples have one",
			r.rubrics, r.samples)})
	}
	if has(Files) {
		list = append(list, Hint{Kind: Files, Number: 1, Text: "other files than nearly all samples"})
	}
	return list
}

func (l length) String() string {
	return fmt.Sprintf("%d frames at %s fps", l.frames, strconv.FormatFloat(float64(l.fps), 'f', -1, 32))
}

// Plays reports whether current browsers play a video as it is. Of one whose codec is not known, they do not.
func Plays(name string, m sample.Media) bool {
	switch path.Ext(name) {
	case ".mp4":
		return m.Codec == "h264" && (m.PixelFormat == "yuv420p" || m.PixelFormat == "yuvj420p") ||
			m.Codec == "vp9" || m.Codec == "av1"
	case ".webm":
		return m.Codec == "vp8" || m.Codec == "vp9" || m.Codec == "av1"
	}
	return false
}
