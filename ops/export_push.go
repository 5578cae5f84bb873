package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

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
