package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// pulumiTarget asks the Pulumi CLI for the outputs of a stack, as a person would in the project's folder. A name
// without a project ("dev") needs that folder; a full one ("organization/vm-dataset/dev") does not.
func pulumiTarget(ctx context.Context, f *Flags, d task.Dataset) (*Target, error) {
	args := []string{"stack", "output", "--json", "--non-interactive"}
	if f.Stack != "" {
		args = append(args, "--stack", f.Stack)
	}
	text, err := Pulumi(ctx, f, args...)
	if err != nil {
		return nil, err
	}
	name := f.Stack
	if name == "" {
		shown, err := Pulumi(ctx, f, "stack", "--show-name", "--non-interactive")
		if err != nil {
			return nil, err
		}
		if name = strings.TrimSpace(string(shown)); name == stack.Local {
			return nil, ui.WithHint(fmt.Errorf("the selected Pulumi stack is called %s, which is ops' name for this machine",
				name), "ops --stack ORGANIZATION/PROJECT/%s, or rename it: pulumi stack rename", name)
		}
	}
	o, err := stack.Parse(text)
	switch {
	case err != nil && strings.TrimSpace(string(text)) == "{}":
		return nil, ui.WithHint(fmt.Errorf("stack %s has no outputs: it was never deployed, or it was destroyed", name),
			"pulumi up --stack %s, then the same command", name)
	case err != nil:
		return nil, ui.WithHint(fmt.Errorf("stack %s: %w", name, err), "pulumi up --stack %s, then the same command", name)
	}
	return &Target{Outputs: o, Name: name, Dataset: d, flags: f.projectFlag()}, nil
}

// Pulumi runs the Pulumi CLI in the project's folder and returns what it
// printed. Its errors are one sentence with a hint.
func Pulumi(ctx context.Context, f *Flags, args ...string) ([]byte, error) {
	path, err := exec.LookPath("pulumi")
	if err != nil {
		return nil, ui.WithHint(errors.New("there is no pulumi on the PATH to ask for the stack's outputs"),
			"install Pulumi; or --outputs FILE with what 'pulumi stack output --json' printed elsewhere; or ops --stack "+
				"local for this machine")
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Stderr = f.Project, &stderr
	cmd.Env = append(os.Environ(), "PULUMI_SKIP_UPDATE_CHECK=true")
	out, err := cmd.Output()
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return out, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case !exited:
		return nil, ui.WithHint(fmt.Errorf("run pulumi: %w", err), "name the project's folder with --project or OPS_PROJECT")
	}
	return nil, pulumiRefusal(f, exit.ExitCode(), stderr.String())
}

// refusals are the messages of the Pulumi CLI, as of v3.230.0, when it does not print the outputs, and what they mean
// here. $1 is what the pattern catches, or else the name of the stack; $folder is where Pulumi was asked.
var refusals = []struct {
	status              int // Pulumi's exit status that means the same; 0 for none
	pattern, means, way string
}{
	{3, `PULUMI_ACCESS_TOKEN must be set|invalid access token`, "Pulumi is not logged in to where the stacks are kept",
		"pulumi login (or set PULUMI_BACKEND_URL), as for pulumi up, then the same command"},
	{6, `no stack named '(.*?)' found`, "there is no Pulumi stack $1",
		"pulumi stack ls shows those there are; pulumi stack init $1 makes it"},
	{0, `no stack selected`, "no Pulumi stack is selected",
		"ops --stack NAME ..., or pulumi stack select NAME; ops --stack local for this machine"},
	{0, `no Pulumi\.yaml project file found|pass the fully qualified name`,
		"there is no Pulumi project in $folder or above it",
		"run ops in the checkout, name its folder with --project DIR or OPS_PROJECT, or give the stack's full name: " +
			"--stack ORGANIZATION/PROJECT/STACK"},
	{0, `passphrase must be set`, "the stack is locked with a passphrase, and neither PULUMI_CONFIG_PASSPHRASE nor " +
		"PULUMI_CONFIG_PASSPHRASE_FILE is set",
		"export PULUMI_CONFIG_PASSPHRASE=... (may be empty), as for pulumi up, then the same command"},
	{0, `unable to read PULUMI_CONFIG_PASSPHRASE_FILE: (?:open )?(.*)`,
		"the file that PULUMI_CONFIG_PASSPHRASE_FILE names cannot be read: $1", "name the right file, then the same command"},
	{0, `incorrect passphrase`,
		"the passphrase in PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE is not the stack's",
		"set the one that was used at pulumi stack init, then the same command"},
	{0, `currently locked by`, "another Pulumi process works on the stack",
		"the same when it is done; if it was killed: pulumi cancel"},
}

func pulumiRefusal(f *Flags, status int, stderr string) error {
	for _, r := range refusals {
		found := regexp.MustCompile(r.pattern).FindStringSubmatch(stderr)
		if found == nil && (r.status == 0 || r.status != status) {
			continue
		}
		caught := f.Stack
		if len(found) > 1 {
			caught = found[1]
		}
		folder, err := filepath.Abs(f.Project)
		if err != nil {
			return err
		}
		fill := strings.NewReplacer("$1", caught, "$folder", folder).Replace
		return ui.WithHint(errors.New(fill(r.means)), "%s", fill(r.way))
	}
	if _, wrong, found := strings.Cut("\n"+stderr, "\nerror: "); found {
		stderr = wrong // without the progress before it
	}
	return ui.WithHint(fmt.Errorf("pulumi does not print the stack's outputs: %s", strings.TrimSpace(stderr)),
		"pulumi stack output --json in the project's folder, until that works")
}
