// Package target finds the stack that the flags name, and makes clients for it.
package target

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/queue"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Target is the stack that a command works on.
type Target struct {
	stack.Outputs
	Name    string
	Dataset task.Dataset // that the command works on
	flags   string       // that lead to it from this folder, beside --stack; mostly ""
}

// Find returns the stack: the local one, a saved file, or what Pulumi says. The dataset may be none.
func Find(ctx context.Context, f *Flags, d task.Dataset) (*Target, error) {
	if f.Stack == stack.Local {
		o, err := local.Outputs(f.LocalDir)
		if errors.Is(err, local.ErrDown) {
			return nil, ui.WithHint(err, "ops local up")
		}
		return &Target{Outputs: o, Name: stack.Local, Dataset: d}, err
	}
	if f.Outputs != "" {
		text, err := os.ReadFile(f.Outputs)
		if err != nil {
			return nil, err
		}
		o, err := stack.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Outputs, err)
		}
		t := &Target{Outputs: o, Name: cmp.Or(f.Stack, "of "+f.Outputs), Dataset: d}
		if os.Getenv("OPS_OUTPUTS") == "" { // else the next command has it, too
			t.flags = " --outputs " + ui.Quote(ui.FromHere(f.Outputs))
		}
		return t, nil
	}
	return pulumiTarget(ctx, f, d)
}

// AWSConfig is the SDK's own configuration with the region of the stack; the
// local stack has its own endpoint and placeholder credentials.
func (t *Target) AWSConfig(ctx context.Context) (aws.Config, error) {
	if t.Name == stack.Local {
		return local.AWSConfig(t.Outputs), nil
	}
	return store.LoadConfig(ctx, t.Region, store.LimitedRetries)
}

// Store is a client for its bucket.
func (t *Target) Store(ctx context.Context) (*store.Store, error) {
	if t.Name == stack.Local {
		return local.BucketStore(t.Outputs).In(t.Dataset), nil
	}
	c, err := t.AWSConfig(ctx)
	if err != nil {
		return nil, err
	}
	return store.New(s3.NewFromConfig(c, store.ClientOptions), t.BucketName).In(t.Dataset), nil
}

// Queue is a client for its queue and DLQ.
func (t *Target) Queue(ctx context.Context) (*queue.Client, error) {
	c, err := t.AWSConfig(ctx)
	if err != nil {
		return nil, err
	}
	q := queue.New(sqs.NewFromConfig(c), t.QueueURL, t.DLQURL)
	if t.Name == stack.Local {
		q.IsExact()
	}
	return q, nil
}

// Lambda is a client for Lambda.
func (t *Target) Lambda(ctx context.Context) (*lambda.Client, error) {
	c, err := t.AWSConfig(ctx)
	if err != nil {
		return nil, err
	}
	return lambda.NewFromConfig(c), nil
}

// String is what a command is about to change: stack, account or endpoint, and region.
func (t *Target) String() string {
	where := "account " + t.AccountID
	if t.SQSEndpoint != "" {
		where = t.SQSEndpoint
	}
	return fmt.Sprintf("stack %s · %s · %s", t.Name, where, t.Region)
}

// Flags are what to write behind ops to reach the same stack again.
func (t *Target) Flags() string {
	if t.Name == "" || strings.HasPrefix(t.Name, "of ") {
		return t.flags
	}
	return t.flags + " --stack " + t.Name
}

// In is what to write behind a command to reach the same dataset again.
func (t *Target) In() string {
	if t.Dataset.IsZero() || os.Getenv("OPS_DATASET") == t.Dataset.String() {
		return ""
	}
	return " --dataset " + t.Dataset.String()
}

// Flags are the stack that a command works on, and folders of this machine.
type Flags struct {
	Stack      string `help:"Stack to work on: a Pulumi stack, or ${local_stack} for the one on this machine. Default: the selected Pulumi stack." env:"OPS_STACK" placeholder:"NAME"`
	LocalDir   string `help:"Where the local stack and submits keep everything. Default: .local in the project." env:"OPS_LOCAL_DIR" type:"path" placeholder:"DIR"`
	Project    string `help:"Folder of the Pulumi project, when ops is run elsewhere: Pulumi is asked there, and its generators and .local are used." short:"C" env:"OPS_PROJECT" type:"existingdir" placeholder:"DIR"`
	Outputs    string `help:"Read the stack outputs from a file saved with 'pulumi stack output --json', on machines without Pulumi." type:"existingfile" placeholder:"FILE"`
	Generators string `help:"Folder with the generators. Default: generators in the project." env:"OPS_GENERATORS" type:"path" placeholder:"DIR" name:"generators-dir"`
}

// AfterApply fills in the folders below the project's that no flag names.
func (f *Flags) AfterApply() error {
	project, err := filepath.Abs(f.Project)
	f.LocalDir = cmp.Or(f.LocalDir, filepath.Join(project, ".local"))
	f.Generators = cmp.Or(f.Generators, filepath.Join(project, generator.DefaultRoot))
	return err
}

// projectFlag is the flag for hints that leads to the same project.
func (f *Flags) projectFlag() string {
	if f.Project == "" || os.Getenv("OPS_PROJECT") != "" {
		return ""
	}
	return " --project " + f.Project
}

// Exports are the outputs as shell code: what the AWS CLI reads, and names for scripts.
func (t *Target) Exports() []string {
	pairs := [][2]string{
		{"AWS_REGION", t.Region}, {"AWS_DEFAULT_REGION", t.Region},
		{"QUEUE_URL", t.QueueURL}, {"DLQ_URL", t.DLQURL}, {"BUCKET", t.BucketName},
		{"AWS_ENDPOINT_URL_SQS", t.SQSEndpoint}, {"AWS_ENDPOINT_URL_S3", t.S3Endpoint},
		{"AWS_ENDPOINT_URL_LAMBDA", t.LambdaEndpoint},
		{"AWS_ACCESS_KEY_ID", t.AccessKeyID}, {"AWS_SECRET_ACCESS_KEY", t.SecretAccessKey},
	}
	var lines []string
	for _, p := range pairs {
		if p[1] != "" {
			lines = append(lines, fmt.Sprintf("export %s='%s'", p[0], strings.ReplaceAll(p[1], "'", `'\''`)))
		}
	}
	if t.SQSEndpoint != "" {
		lines = append(lines, "unset AWS_PROFILE AWS_SESSION_TOKEN") // they would win over the placeholders
		lines = append(lines, direct...)
	}
	return lines
}

// direct keeps boto3, the AWS CLI and curl from using a proxy for this machine. Clients
// that read only one of the two variables get what the user has in the other.
var direct = []string{
	`export NO_PROXY="${NO_PROXY:-${no_proxy:-}}" no_proxy="${no_proxy:-${NO_PROXY:-}}"`,
	`case ",$NO_PROXY," in (",*,"|*,127.0.0.1,*) ;; (*) NO_PROXY="127.0.0.1,localhost,::1${NO_PROXY:+,$NO_PROXY}" ;; esac`,
	`case ",$no_proxy," in (",*,"|*,127.0.0.1,*) ;; (*) no_proxy="127.0.0.1,localhost,::1${no_proxy:+,$no_proxy}" ;; esac`,
}

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
