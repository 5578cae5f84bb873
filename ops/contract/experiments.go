package contract

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/probe"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
)

// all makes every experiment. What the worker would do is measured; what only a
// check does (another PYTHONHASHSEED, watching, keeping apart) comes after that.
func (k *check) all(ctx context.Context) error {
	k.commandLine()
	first, err := k.runWithSeeds(ctx, 0)
	if err != nil {
		return err
	}
	if first.failure != nil {
		k.failed(first.failure)
		return nil
	}
	r := k.report
	r.Domain = first.Domain
	if known := k.generator.Domain; known != "" && known != first.Domain {
		r.add(Output, Notes, "the domain of its samples is %s, and %s in %s", first.Domain, known, generator.Catalogue)
	}
	for _, f := range first.Samples[0].Files {
		r.Files = append(r.Files, f.Name)
	}
	r.Files = sample.Shape(r.Files)
	r.Hints = inspect.Of(r.Generator, first.Domain, first.Samples).Hints
	k.leftovers(first)
	for _, experiment := range []func(context.Context, *made) error{k.sameSeed, k.otherSeed, k.twice, k.hashSeed,
		k.apart, k.decodable, k.judge} {
		if err := experiment(ctx, first); err != nil {
			return err
		}
		k.removeRuns(first)
	}
	// A few samples tell a few samples' worth: a generator whose samples differ much in cost needs more of them.
	r.Cost = new(probe.CostOf(k.generator, k.measured))
	r.Advice = new(advise(*r.Cost, k.generator.ChunkSize))
	return nil
}

func (k *check) commandLine() {
	switch f := k.generator.Flags; {
	case f.From == generator.FromContract:
		k.report.add(CommandLine, Notes, "its --help lists no flags: the contract's are assumed")
	case !f.Seed:
		k.report.add(CommandLine, Notes, "it takes no --seed: nothing keeps two of its chunks from coming out alike")
	}
}

func (k *check) failed(f *generator.Failure) {
	r := k.report
	property, remedy := Output, ""
	switch f.Reason {
	case generator.Network:
		property, r.Network = Network, new(true)
	case generator.CommandLine:
		property = CommandLine
	case generator.MissingModule:
		remedy = "; its requirements.txt, or requirements in " + generator.Catalogue + ", can add it"
	}
	r.add(property, Fails, "%s%s", f, remedy)
	r.Stderr = f.Stderr
}

// leftovers looks at what a run has left beside its output.
func (k *check) leftovers(m *made) {
	if names, n := strays(filepath.Join(m.scratch, "work")); n > 0 {
		k.report.add(OwnFolder, Breaks, "it writes into its own folder: %s", names)
	}
	if names, n := strays(filepath.Join(m.scratch, "home")); n > 0 {
		k.report.add(Home, Notes, "it writes into the home folder: %s", names)
	}
	_, k.report.LeftInTmp = strays(filepath.Join(m.scratch, "tmp"))
}

// few is how many names a finding has; it counts the others.
const few = 3

func (k *check) sameSeed(ctx context.Context, first *made) error {
	defer k.step()
	again, d, err := k.again(ctx, first, order{count: first.count, seed: first.seed})
	if err != nil {
		return err
	}
	r, level := k.report, Breaks
	if !k.generator.Flags.Seed {
		level = Notes // it has no seed to keep to
	}
	if again.failure != nil {
		r.SameSeed = new(false)
		r.add(SameSeed, level, "the same command again fails: %s", again.failure)
		return nil
	}
	r.SameSeed, r.Times = new(d.none()), d.times
	switch {
	case !d.none():
		r.add(SameSeed, level, "the same command again makes other files in %d of %d samples: %s", d.samples,
			len(first.Samples), ui.Some(d.in, few))
	case d.times:
		r.add(SameSeed, Notes, "its metadata hold the time, all else is the same when it is run again")
	}
	return nil
}

func (k *check) otherSeed(ctx context.Context, first *made) error {
	other, err := k.runWithSeeds(ctx, 1)
	if err != nil {
		return err
	}
	r := k.report
	if other.failure != nil {
		r.add(Output, Breaks, "one chunk of two fails: %s", other.failure)
		return nil
	}
	prints, others := fingerprints(first.Samples), fingerprints(other.Samples)
	same := 0
	for _, p := range others {
		if slices.Contains(prints, p) {
			same++
		}
	}
	alike := slices.Equal(prints, others)
	r.OtherSeed = new(!alike)
	distinct := slices.Compact(slices.Sorted(slices.Values(prints)))
	switch {
	case alike && k.generator.Flags.Seed:
		r.add(OtherSeed, Breaks, "another seed makes the same samples: its chunks come out alike")
	case alike:
		r.add(OtherSeed, Breaks, "its chunks come out alike: it has no seed, and draws from none that changes")
	case same > 0:
		r.add(OtherSeed, Notes, "%d of %d samples of another seed are the same puzzles: it may have few", same,
			len(other.Samples))
	}
	if len(distinct) < len(prints) && !alike {
		r.add(OtherSeed, Notes, "of %d samples of one run only %d are distinct", len(prints), len(distinct))
	}
	return nil
}

func fingerprints(samples []sample.Sample) (list []string) {
	for _, s := range samples {
		list = append(list, s.Fingerprint)
	}
	return list
}

// twice asks for twice as many samples of the same seed.
func (k *check) twice(ctx context.Context, first *made) error {
	defer k.step()
	more, d, err := k.again(ctx, first, order{count: 2 * first.count, seed: first.seed})
	if err != nil {
		return err
	}
	r := k.report
	if more.failure != nil {
		r.add(Twice, Breaks, "with the same seed it makes %d samples, but not %d: %s", first.count, more.count, more.failure)
		return nil
	}
	r.Hints = inspect.Of(r.Generator, more.Domain, more.Samples).Hints
	if r.SameSeed == nil || !*r.SameSeed {
		return nil // there is nothing to compare with
	}
	if r.Prefix = new(d.none()); !d.none() {
		r.add(Prefix, Notes, "of %d samples the first %d are others than when only they are asked for: "+
			"what a sample is depends on the chunk size", more.count, first.count)
	}
	return nil
}

// hashSeed runs the same command with another PYTHONHASHSEED.
func (k *check) hashSeed(ctx context.Context, first *made) error {
	defer k.step()
	r := k.report
	if r.SameSeed == nil || !*r.SameSeed {
		return nil
	}
	const other = "PYTHONHASHSEED=3"
	hashed, d, err := k.again(ctx, first, order{count: first.count, seed: first.seed, env: []string{other}})
	if err != nil {
		return err
	}
	what := ui.Some(d.in, few)
	if hashed.failure != nil {
		what = "fails with another: " + hashed.failure.Error()
	}
	if r.HashSeed = new(hashed.failure != nil || !d.none()); !*r.HashSeed {
		return nil
	}
	if k.generator.Flags.Seed && hashed.failure == nil {
		// Is it the seed at all? Another one with the same PYTHONHASHSEED tells.
		seeded, err := k.run(ctx, order{count: first.count, seed: first.seed/2 + 1, env: []string{other}})
		if err != nil {
			return err
		}
		if seeded.failure == nil && slices.Equal(fingerprints(seeded.Samples), fingerprints(hashed.Samples)) {
			r.add(HashSeed, Breaks,
				"what it makes depends on PYTHONHASHSEED, which a worker sets to the seed, and on --seed not at all")
			return nil
		}
	}
	r.add(HashSeed, Notes, "what it makes depends on PYTHONHASHSEED too, which a worker sets to the seed: %s", what)
	return nil
}

// apart watches it from within while it has neither network nor shared memory.
func (k *check) apart(ctx context.Context, first *made) error {
	defer k.step()
	m, d, err := k.again(ctx, first, order{count: first.count, seed: first.seed, watched: true})
	if err != nil {
		return err
	}
	r := k.report
	switch r.Seen, err = readSeen(m.scratch, k.generator); {
	case errors.Is(err, fs.ErrNotExist):
		r.add(Watching, Notes, "it could not be watched: its Python does not look at PYTHONPATH")
	case err != nil:
		r.add(Watching, Notes, "it could not be watched: %v", err)
	}
	how, readOnly := "", false
	if m.failure != nil {
		how, readOnly = "fails: "+m.failure.Error(), m.failure.Reason == generator.ReadOnly
	} else if r.SameSeed != nil && *r.SameSeed && !d.none() {
		how = "makes other files: " + ui.Some(d.in, few)
	}
	k.reportIsolation(m.Apart, how, readOnly)
	k.reportWrites()
	k.reportFonts()
	return nil
}

// reportIsolation reports what a run without network and shared memory shows: how it differs, or "", and whether it
// failed as a lock in /dev/shm does.
func (k *check) reportIsolation(taken sandbox.Apart, how string, readOnly bool) {
	r := k.report
	network := resource{Network, "the network", r.Seen.Network, taken.Network, &r.Network}
	shared := resource{SharedMemory, "shared memory", r.Seen.Shared, taken.Shm, &r.Shm}
	switch asks := [2]bool{len(network.asked) > 0, len(shared.asked) > 0}; {
	case how == "":
		k.reportResource(network, "")
		k.reportResource(shared, "")
	case asks == [2]bool{}:
		r.add(Watching, Notes, "without network and /dev/shm, and watched, it %s", how)
	case !asks[0] || asks[1] && readOnly:
		k.reportResource(shared, how)
	default:
		k.reportResource(network, how) // of the other nothing is known then
	}
}

// resource is what a generator can be kept from.
type resource struct {
	property Property
	name     string
	asked    []string // what of it the generator asked for
	taken    bool     // it was kept from it
	needs    **bool   // in the report
}

// reportResource says what a generator did without a resource: how it came out otherwise, or "".
func (k *check) reportResource(x resource, how string) {
	name := x.name
	if len(x.asked) > 0 {
		name += " (" + ui.Some(x.asked, few) + ")"
	}
	if x.taken {
		*x.needs = new(how != "")
	}
	switch {
	case x.taken && how != "":
		level := Breaks
		if x.property == Network && k.generator.Network { // as the catalogue says
			level = Notes
		}
		k.report.add(x.property, level, "it needs %s: without, it %s", name, how)
	case len(x.asked) == 0:
	case x.taken:
		k.report.add(x.property, Notes, "it asks for %s, and does without", name)
	default:
		k.report.add(x.property, Notes,
			"it asks for %s; whether it needs it cannot be found out here, where nothing can be taken away from a process", name)
	}
}

func (k *check) reportWrites() {
	var own, outside []string
	home, err := filepath.EvalSymlinks(k.generator.Dir)
	for _, name := range k.report.Seen.Outside {
		if err == nil && strings.HasPrefix(name, home+string(filepath.Separator)) {
			own = append(own, strings.TrimPrefix(name, home+string(filepath.Separator)))
		} else {
			outside = append(outside, name)
		}
	}
	if len(own) > 0 {
		k.report.add(OwnFolder, Breaks, "it wants to write to its own files: %s", ui.Some(own, few))
	}
	if len(outside) > 0 {
		k.report.add(Outside, Breaks, "it wants to write outside its folders, where a worker does not let it: %s",
			ui.Some(outside, few))
	}
}

// reportFonts says on which of the machine its pixels depend.
func (k *check) reportFonts() {
	base := func(list []string) (names []string) {
		for _, name := range list {
			names = append(names, filepath.Base(name))
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
	found, missed := base(k.report.Seen.SystemFonts), base(k.report.Seen.MissedFonts)
	missed = slices.DeleteFunc(missed, func(name string) bool { return slices.Contains(found, name) })
	var texts []string
	if len(found) > 0 {
		texts = append(texts, "it draws with fonts of the machine: "+ui.Some(found, few))
	}
	if len(missed) > 0 {
		texts = append(texts, "fonts that it looks for are not here: "+ui.Some(missed, few))
	}
	if len(texts) > 0 {
		k.report.add(Fonts, Notes, "%s", strings.Join(texts, "; "))
	}
}

// decodable decodes every picture and video of a run.
func (k *check) decodable(ctx context.Context, m *made) error {
	wrong, tools, unknown, err := decoded(ctx, k.generator, k.dir, m.Samples)
	if err != nil {
		return err
	}
	k.report.Decoders = tools
	switch {
	case len(wrong) > 0:
		k.report.add(Decodable, Breaks, "%d pictures or videos cannot be decoded, such as %s", len(wrong), wrong[0])
	case unknown:
		k.report.add(Decodable, Notes,
			"its videos are complete, but were not decoded: neither its environment nor this machine has PyAV, OpenCV or ffmpeg")
	}
	return nil
}

// judge has its own judge, if it has one, score the videos of a run: all should have all points.
func (k *check) judge(ctx context.Context, m *made) error {
	if !probe.HasJudge(k.generator) {
		return nil
	}
	scratch, err := os.MkdirTemp(k.dir, "judge-")
	if err != nil {
		return err
	}
	if k.Runs.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, k.Runs.Timeout)
		defer cancel()
	}
	scores, err := probe.Judge(ctx, k.generator, scratch, m.Samples)
	if f := probe.Blame(err); f != nil {
		k.report.add(OwnJudge, Notes, "%s", f)
		return nil
	}
	if err != nil {
		return err
	}
	k.report.Scores = scores
	var low []string
	for _, s := range scores {
		if s.Low() {
			low = append(low, s.String())
		}
	}
	if len(low) > 0 {
		k.report.add(OwnJudge, Notes, "its own judge does not give all points to %d of %d samples: %s", len(low), len(scores),
			ui.Some(low, few))
	}
	return nil
}
