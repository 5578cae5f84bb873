package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// judge is a generator's program that scores videos, with the command line of the organisation's template.
const judge = "eval/verify.py"

// Full is the score, of 1, from which a video has all points: it is shown as 100.0 %.
const Full = 0.9995

// Bounds of a judge.
const (
	maxScores      = 64 << 20 // bytes of its results
	maxJudgeFile   = 1 << 30  // bytes
	maxJudgeMemory = 8 << 30  // bytes
	maxJudgeTime   = 10 * time.Minute
	maxFaults      = 20  // of a sample, that are kept
	maxFault       = 300 // bytes of one
)

// Score is what a generator's judge says of a sample's own video.
type Score struct {
	ID     string   `json:"id"`
	Score  float64  `json:"score"`            // from 0 to 1
	Faults []string `json:"faults,omitempty"` // what it finds wrong, if it says so
}

// Low reports whether the video has not all points.
func (s Score) Low() bool { return s.Score < Full }

// Percent is the score as text.
func (s Score) Percent() string { return fmt.Sprintf("%.1f %%", 100*s.Score) }

// String is the sample's name, its score, and the first fault.
func (s Score) String() string {
	text := s.ID + " has " + s.Percent()
	if len(s.Faults) > 0 {
		text += " (" + s.Faults[0] + ")"
	}
	return text
}

// HasJudge reports whether a generator has a judge.
func HasJudge(g *generator.Generator) bool {
	info, err := os.Stat(filepath.Join(g.Dir, filepath.FromSlash(judge)))
	return err == nil && info.Mode().IsRegular()
}

// Judge has a generator's judge score the videos of samples, as if a model had made them. It runs in the generator's
// environment and in the sandbox, in scratch, a private folder, for at most ten minutes. A video without a score has
// none of the points. Blame recognizes the error if the judge is at fault.
func Judge(ctx context.Context, g *generator.Generator, scratch string, samples []sample.Sample) ([]Score, error) {
	ctx, cancel := context.WithTimeout(ctx, maxJudgeTime)
	defer cancel()
	videos, truth := filepath.Join(scratch, "videos"), filepath.Join(scratch, "samples")
	for _, dir := range []string{videos, truth, filepath.Join(scratch, "home"), filepath.Join(scratch, "tmp")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := os.Symlink(g.Dir, filepath.Join(scratch, "work")); err != nil { // on PYTHONPATH
		return nil, err
	}
	for _, s := range samples {
		for _, f := range s.Files {
			to := []string{filepath.Join(truth, s.ID, filepath.FromSlash(f.Name))}
			if sample.IsGroundTruth(f.Name) {
				to = append(to, filepath.Join(videos, s.ID+path.Ext(f.Name)))
			}
			for _, name := range to {
				if err := place(f.Path, name); err != nil {
					return nil, err
				}
			}
		}
	}
	const results = "scores.json"
	stderr := &generator.Tail{Limit: 8 << 10}
	cmd, err := generator.Program{Argv: []string{g.Python, filepath.Join(g.Dir, filepath.FromSlash(judge)), "--videos-dir",
		videos, "--gt-dir", truth, "--output", filepath.Join(scratch, results)},
		Env: generator.Environ(g, 0, scratch), Scratch: scratch, Readable: generator.Readable(g), MaxFile: maxJudgeFile,
		MaxMemory: maxJudgeMemory}.Start(ctx, func(c *exec.Cmd) error { c.Stderr = stderr; return nil })
	if err != nil {
		return nil, err
	}
	ended := cmd.Wait()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, &generator.Failure{Cause: task.TimedOut, Detail: "its judge was still running when its time was up"}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	scores, err := readScores(scratch, results, samples)
	if err != nil {
		text := strings.TrimSpace(stderr.String())
		detail := fmt.Sprintf("its judge, %s, wrote no scores: %v", judge, err)
		if ended != nil {
			detail = fmt.Sprintf("its judge, %s, failed: %v: %s", judge, ended, text[strings.LastIndex(text, "\n")+1:])
		}
		return nil, &generator.Failure{Cause: task.Crashed, Detail: detail, Stderr: text}
	}
	return scores, nil
}

// place copies a file of a sample: the judge may change what it is given.
func place(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// readScores reads the results of a judge: a score for each sample.
func readScores(dir, name string, samples []sample.Sample) ([]Score, error) {
	text, err := generator.ReadLeft(dir, name, maxScores)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("there is no file of results")
	}
	if err != nil {
		return nil, err
	}
	var list []struct {
		Folder string   `json:"gt_dir"`
		Score  *float64 `json:"score"`
		Error  string   `json:"error"`
		Faults []string `json:"faults"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	found := map[string]Score{}
	for _, r := range list {
		s := Score{ID: path.Base(filepath.ToSlash(r.Folder)), Faults: r.Faults}
		if r.Score != nil {
			s.Score = *r.Score
		}
		if r.Error != "" {
			s.Faults = append([]string{r.Error}, s.Faults...)
		}
		if r.Score == nil || s.Score < 0 || s.Score > 1+1e-6 {
			s.Score, s.Faults = 0, append(s.Faults, "its score is no number from 0 to 1")
		}
		s.Faults = s.Faults[:min(len(s.Faults), maxFaults)] // as far as people read them
		for i, text := range s.Faults {
			s.Faults[i] = ui.Cut(ui.Printable(text), maxFault)
		}
		found[s.ID] = s
	}
	scores := make([]Score, len(samples))
	for i, s := range samples {
		score, ok := found[s.ID]
		if !ok {
			score = Score{ID: s.ID, Faults: []string{"the judge has no score for it"}}
		}
		scores[i] = score
	}
	return scores, nil
}
