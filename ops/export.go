package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/inventory"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

type ExportCmd struct {
	Make   ExportMakeCmd   `cmd:"" default:"withargs" help:"Export a dataset: what 'ops export' does without a command."`
	Verify ExportVerifyCmd `cmd:"" help:"Check the files of an export against its SHA256SUMS; needs no stack."`
	Push   ExportPushCmd   `cmd:"" help:"Upload an export to the Hugging Face hub with its own client."`
}

func (*ExportCmd) Help() string { return (&ExportMakeCmd{}).Help() }

type ExportMakeCmd struct {
	inDataset
	exportPlace
	As           string   `help:"Form: ${enum}." enum:"webdataset,parquet,vbvr,folder,manifest" required:""`
	To           string   `help:"Folder, or s3://BUCKET/PREFIX." required:"" placeholder:"PLACE"`
	Generator    []string `help:"Only this generator; may be repeated. Default: all of the dataset." placeholder:"NAME" predictor:"generator"`
	Split        string   `help:"train=0.9,test=0.1 by fingerprint, or train=*,test=NAME+NAME by generator. Default: all in train." placeholder:"RULE"`
	Where        string   `help:"Only samples for whose metadata.json this holds: difficulty >= 3." placeholder:"CONDITION"`
	Without      string   `help:"Leave out the samples of open flags: flagged. 'ops flags list' shows them." enum:",flagged" default:"" placeholder:"flagged"`
	PerGenerator int      `help:"At most so many samples of each generator, the first ones." placeholder:"N"`
	ShardSize    string   `help:"About how large a file of webdataset and parquet may be." default:"1GB" placeholder:"SIZE"`
	Video        string   `help:"Encode videos again: h264, h264:832x480, @16 frames a second, x81 frames. Default: as they are." placeholder:"h264[:WxH][@FPS][xFRAMES]"`
	Partial      bool     `help:"Export an incomplete dataset, too; the card says what is missing."`
	Workers      int      `help:"Files that are written at once. Default: one for each CPU, at least 4." placeholder:"N"`
}

// exportPlace is how a bucket of one's own is reached.
type exportPlace struct {
	Endpoint string `help:"For s3://: URL of another service with the S3 API. Credentials and region come from the environment, as for the AWS CLI." placeholder:"URL"`
}

func (*ExportMakeCmd) Help() string {
	return `Writes a dataset in a form that trainers, hubs and evaluators open as it is. The flags are those of 'ops export make', which may be left out:

  webdataset  tar files of about --shard-size for webdataset, Hugging Face streaming and Energon
  parquet     Parquet with the pictures and videos in it, for datasets, DuckDB and the hub's viewer
  vbvr        a tar for each generator and data/metadata.parquet, as VBVR-Dataset is published
  folder      folders and files, for people and evaluators
  manifest    folder, and lists of it for trainers: CSV, JSON Lines, JSON, Parquet

Every file of a sample is compared with its receipt on the way. The same dataset and flags give the same files, whoever exports it. SHA256SUMS has the hashes of all files and is written last: with it the export is finished, and 'ops export verify' checks it.

What is interrupted goes on with the same command: finished files are not written again. Progress is noted below PLACE/.export until the end.

An incomplete dataset is refused unless --partial says that this is known.

Exit status 1: it was stopped, or the disk or the bucket failed; the same command goes on. 2: the dataset is incomplete, or a file is not what its receipt says. 80: a flag is wrong.

Examples:
  ops --stack dev export --as webdataset --to v1
  ops --stack dev export --as parquet --to v1 --split train=0.9,test=0.1
  ops --stack dev export --as vbvr --to s3://datasets/v1 --endpoint https://s3.example.com
  ops --stack dev export --as parquet --to curated --without flagged
  ops --stack local export --as folder --to hard --where 'difficulty >= 3' --per-generator 100
  ops export verify v1`
}

func (c *ExportMakeCmd) Validate() error {
	if _, err := export.ParseSplits(c.Split); err != nil {
		return fmt.Errorf("--split: %w", err)
	}
	if _, err := export.ParseCondition(c.Where); err != nil {
		return err
	}
	if _, err := export.ParseVideo(c.Video); err != nil {
		return fmt.Errorf("--video: %w", err)
	}
	if size, err := parseSize(c.ShardSize); err != nil || size < 1e6 {
		return fmt.Errorf("--shard-size %s must be a number with a unit, such as 500MB or 1GB, and at least 1MB", c.ShardSize)
	}
	if c.PerGenerator < 0 || c.Workers < 0 {
		return errors.New("--per-generator and --workers must be positive")
	}
	return c.checkPlace(c.To)
}

// parseSize reads a number of bytes: 500MB, 1GB, 2GiB.
func parseSize(text string) (int64, error) {
	units := map[string]float64{"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 1 << 10, "MIB": 1 << 20,
		"GIB": 1 << 30}
	digits := strings.TrimRight(strings.ToUpper(text), "KMGTIB ")
	number, err := strconv.ParseFloat(digits, 64)
	unit, ok := units[strings.TrimSpace(strings.ToUpper(text)[len(digits):])]
	if size := number * unit; err == nil && ok && size >= 0 && size < 1<<62 {
		return int64(size), nil
	}
	return 0, fmt.Errorf("%q is no size", text)
}

func (c *ExportMakeCmd) Run(ctx context.Context, o *Output, t *target.Target, st *store.Store) error {
	// What is read ahead and not used any more would double, before Go collects it.
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(200 << 20)
	}
	m, err := manifest(ctx, st, t, t.Dataset.String())
	if err != nil {
		return err
	}
	var known []string
	for _, g := range m.Generators {
		known = append(known, g.Name)
	}
	if c.Generator, err = inventory.Pick(c.Generator, known); err != nil {
		return fmt.Errorf("dataset %s: %w", t.Dataset, err)
	}
	to, err := c.open(ctx, c.To, t.Region, export.OpenFolder)
	if err != nil {
		return err
	}
	defer to.Close()
	shard, _ := parseSize(c.ShardSize)
	e := &export.Export{Store: st, To: to, Format: export.Formats[c.As](), Workers: c.Workers, Say: o.Say,
		Progress: (&exportProgress{Output: o}).show,
		Options: export.Options{Generators: slices.Sorted(slices.Values(c.Generator)),
			Split: c.Split, Where: c.Where, Without: c.Without, PerGenerator: c.PerGenerator, ShardSize: shard,
			Partial: c.Partial}}
	catalogue, err := generator.ReadCatalogue(o.Generators)
	if err != nil {
		return err
	}
	e.About = func(name string) (licence, repository, category string) {
		g := catalogue[name]
		return g.Licence, g.Repository, g.Category
	}
	if t.Name == stack.Local {
		e.Folder = local.BucketDir(o.LocalDir)
	}
	if video, _ := export.ParseVideo(c.Video); video != nil {
		encoder, err := export.NewEncoder(ctx, *video)
		if err != nil {
			return ui.WithHint(err, "python3 -m pip install av, or install ffmpeg")
		}
		defer encoder.Close()
		e.Encode, e.Options.Video, e.Options.Encoder = encoder.Encode, c.Video, encoder.Version
	}
	s, err := e.Run(ctx)
	if err != nil {
		return c.explain(ctx, t, err)
	}
	return o.Print(s, func(w io.Writer) { printExport(w, s) })
}

// explain adds the exit status and the way out.
func (c *ExportMakeCmd) explain(ctx context.Context, t *target.Target, err error) error {
	if missing, ok := errors.AsType[*export.IncompleteError](err); ok {
		return ui.WithHint(ui.Problem("%v", missing), "ops%s repair%s, or the same with --partial", t.Flags(), t.In())
	}
	if damage, ok := errors.AsType[*export.DamageError](err); ok {
		return ui.WithHint(ui.Problem("%v", damage), "ops%s verify --deep%s", t.Flags(), t.In())
	}
	if wrong, ok := errors.AsType[*export.ConditionError](err); ok {
		return ui.Usage("%v", wrong)
	}
	switch {
	case errors.Is(err, export.ErrOther):
		return ui.WithHint(err, "another place, or delete that one")
	case ctx.Err() != nil:
		return ui.WithHint(err, "the same command: it goes on where it was")
	}
	return err
}

func printExport(w io.Writer, s *export.Summary) {
	if s.Already {
		fmt.Fprintf(w, "%s was finished already\n", s.To)
		return
	}
	var splits []string
	for _, name := range slices.Sorted(maps.Keys(s.Splits)) {
		splits = append(splits, fmt.Sprintf("%s %s", name, ui.Count(s.Splits[name])))
	}
	fmt.Fprintf(w, "%s of dataset %s (%s) as %s: %s, %s, in %s\n", ui.Plural(s.Samples, "sample"), s.Dataset,
		strings.Join(splits, ", "), s.Format, ui.Plural(s.Files, "file"), ui.Size(s.Bytes), s.To)
	if s.Resumed > 0 {
		fmt.Fprintf(w, "%s of %s were finished before\n", ui.Count(s.Resumed), ui.Plural(s.Parts, "part"))
	}
	if s.Flagged > 0 {
		fmt.Fprintf(w, "%s left out: flagged\n", ui.Plural(s.Flagged, "sample"))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Missing)) {
		fmt.Fprintf(w, "%s: %s missing\n", name, ui.Plural(s.Missing[name], "sample"))
	}
	for _, note := range s.Notes {
		fmt.Fprintln(w, note)
	}
}

func (p *exportPlace) checkPlace(to string) error {
	rest, bucket := strings.CutPrefix(to, "s3://")
	name, _, _ := strings.Cut(rest, "/")
	switch {
	case to == "":
		return errors.New("--to must be a folder or s3://BUCKET/PREFIX")
	case bucket && name == "":
		return fmt.Errorf("%s must be s3://BUCKET/PREFIX", to)
	case !bucket && strings.Contains(to, "://"):
		return fmt.Errorf("%s is neither a folder nor s3://BUCKET/PREFIX", to)
	case !bucket && p.Endpoint != "":
		return errors.New("--endpoint belongs to s3://BUCKET/PREFIX")
	case p.Endpoint != "" && !strings.HasPrefix(p.Endpoint, "http://") && !strings.HasPrefix(p.Endpoint, "https://"):
		return fmt.Errorf("--endpoint %s must begin with https:// or http://", p.Endpoint)
	}
	return nil
}

func (p *exportPlace) open(ctx context.Context, to, region string, folder func(string) (export.Destination, error)) (
	export.Destination, error) {
	rest, bucket := strings.CutPrefix(to, "s3://")
	if !bucket {
		path, err := filepath.Abs(to)
		if err != nil {
			return nil, err
		}
		return folder(path)
	}
	name, prefix, _ := strings.Cut(rest, "/")
	config, err := store.LoadConfig(ctx, "", store.LimitedRetries)
	if err != nil {
		return nil, err
	}
	config.Region = cmp.Or(config.Region, region, "us-east-1")
	client := s3.NewFromConfig(config, func(o *s3.Options) {
		if p.Endpoint != "" {
			o.BaseEndpoint = &p.Endpoint
		}
	}, store.ClientOptions)
	return export.OpenPrefix(store.New(client, name), prefix), nil
}

// exportProgress shows how far an export is, and how long it will take.
type exportProgress struct {
	*Output
	begun time.Time
	first int64 // bytes that were there when it began
}

func (p *exportProgress) show(at export.Progress) {
	if !at.Bytes {
		p.Progress(at.Doing, int(at.Done), int(at.Total))
		return
	}
	if p.begun.IsZero() {
		p.begun, p.first = time.Now(), at.Done
	}
	what := at.Doing
	if done, spent := at.Done-p.first, time.Since(p.begun); done > 0 && at.Done < at.Total && spent > time.Second {
		left := time.Duration(float64(spent) * float64(at.Total-at.Done) / float64(done))
		what = fmt.Sprintf("%s at %s/s, %s left", what, ui.Size(int64(float64(done)/spent.Seconds())), ui.Span(left))
	}
	const mb = 1e6
	done, total := at.Done/mb, (at.Total+mb-1)/mb
	if at.Done == at.Total {
		done = total // and never before: the end is always shown
	}
	p.Progress(what+", MB", int(done), int(total))
}

type ExportVerifyCmd struct {
	exportPlace
	From string `arg:"" name:"place" help:"Folder, or s3://BUCKET/PREFIX."`
}

func (*ExportVerifyCmd) Help() string {
	return `Reads every file of an export and compares it with SHA256SUMS. Files that are missing, changed, or not of the export are named.

Exit status 0: every file is as it was exported. 2: one is not.

Examples:
  ops export verify v1
  ops export verify s3://datasets/v1 --endpoint https://s3.example.com`
}

func (c *ExportVerifyCmd) Validate() error { return c.checkPlace(c.From) }

func (c *ExportVerifyCmd) Run(ctx context.Context, o *Output) error {
	from, err := c.open(ctx, c.From, "", export.ReadFolder)
	if err != nil {
		return err
	}
	defer from.Close()
	r, err := export.Verify(ctx, from, (&exportProgress{Output: o}).show)
	if errors.Is(err, fs.ErrNotExist) {
		return ui.WithHint(ui.Problem("%s has no SHA256SUMS: it is no finished export", c.From),
			"the same ops export again: it goes on where it was")
	}
	if err != nil {
		return err
	}
	err = o.Print(r, func(w io.Writer) {
		for _, p := range r.Problems {
			fmt.Fprintln(w, p)
		}
		if n := r.Wrong - len(r.Problems); n > 0 {
			fmt.Fprintf(w, "and %s more\n", ui.Count(n))
		}
		if r.Wrong == 0 {
			fmt.Fprintf(w, "complete: %s, %s\n", ui.Plural(r.Files, "file"), ui.Size(r.Bytes))
		}
	})
	return cmp.Or(err, ui.ProblemIf(r.Wrong > 0, "%s of %s not as they were exported", ui.Count(r.Wrong),
		ui.Plural(r.Files, "file")))
}

type ExportPushCmd struct {
	Folder  string `arg:"" help:"Folder of a finished export."`
	Name    string `arg:"" help:"Repository of datasets on the hub: OWNER/NAME."`
	Private bool   `help:"A repository that is made is private."`
	Command bool   `help:"Only print the command."`
}

func (*ExportPushCmd) Help() string {
	return `Checks that a finished export keeps the hub's limits (100,000 files in a repository, 10,000 in a folder, 200 GB in a file), and has the hub's own client upload it, hf, which goes on where it was stopped. Where hf is not installed, the command is printed.

Exit status 1: the upload failed. 2: the export is not finished or breaks a limit.

Examples:
  ops export push v1 my-lab/mazes
  ops export push v1 my-lab/mazes --command`
}

var hubName = regexp.MustCompile(`^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$`)

func (c *ExportPushCmd) Validate() error {
	if strings.HasPrefix(c.Folder, "s3:") {
		return errors.New("the hub's client uploads folders: export to a folder first")
	}
	if !hubName.MatchString(c.Name) {
		return fmt.Errorf("%q must be OWNER/NAME, as on the hub", c.Name)
	}
	return nil
}

func (c *ExportPushCmd) Run(ctx context.Context, o *Output) error {
	if _, err := os.Stat(filepath.Join(c.Folder, "SHA256SUMS")); err != nil {
		return ui.WithHint(ui.Problem("%s has no SHA256SUMS: it is no finished export", c.Folder),
			"the same ops export again: it goes on where it was")
	}
	from, err := export.ReadFolder(c.Folder)
	if err != nil {
		return err
	}
	defer from.Close()
	problems, files, bytes, err := export.HubProblems(ctx, from)
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		return ui.WithHint(ui.Problem("%s", strings.Join(problems, "; ")), "--as webdataset or --as parquet: few large files")
	}
	client, err := exec.LookPath("hf")
	if err != nil && !errors.Is(err, exec.ErrNotFound) {
		return err
	}
	args := c.upload(ctx, client)
	if c.Command || client == "" {
		words := []string{"hf"}
		for _, a := range args {
			words = append(words, ui.Quote(a))
		}
		if client == "" {
			o.Say("hf is not installed (python3 -m pip install huggingface_hub); the command is:")
		}
		fmt.Fprintln(o.Stdout, strings.Join(words, " "))
		return nil
	}
	o.Say("uploading %s, %s", ui.Plural(files, "file"), ui.Size(bytes))
	cmd := exec.CommandContext(ctx, client, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, o.Stdout, o.Stderr
	if err := cmd.Run(); err != nil {
		return ui.WithHint(fmt.Errorf("hf %s: %w", args[0], err), "the same command: it goes on where it was")
	}
	return nil
}

// upload is the command line of the hub's client. Those before 2.0 split a large folder into commits, and go on with
// it, only in a command of its own, which later ones do not have.
func (c *ExportPushCmd) upload(ctx context.Context, client string) []string {
	args := []string{"upload", c.Name, c.Folder, ".", "--repo-type", "dataset"}
	if client != "" && exec.CommandContext(ctx, client, "upload-large-folder", "--help").Run() == nil {
		args = []string{"upload-large-folder", c.Name, c.Folder, "--repo-type", "dataset"}
	}
	if c.Private {
		args = append(args, "--private")
	}
	return args
}
