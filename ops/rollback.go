package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

type RollbackCmd struct {
	To int `help:"Version to go to. Default: the one before." placeholder:"N"`
}

func (*RollbackCmd) Help() string {
	return `Each 'pulumi up' that changes the worker publishes a version of the function, with its image and settings, and has it work on the queue. A rollback gives the work to an earlier version, or with --to to any. Tasks at work finish with the version they began with.

A fleet keeps the newest image; a stack without workers in Lambda has nothing to roll back.

A 'pulumi up' that changes nothing leaves a rollback as it is, one that changes the worker ends it, and 'pulumi up --refresh' goes back to the newest version. Meanwhile 'ops submit' takes generators and commits from the image that works: one invocation of a few seconds asks for them.

Examples:
  ops --stack dev rollback
  ops --stack dev rollback --to 3`
}

// rollback is what the command prints as JSON.
type rollback struct {
	Version string `json:"version"`
	Was     string `json:"was"`
	Image   string `json:"image"`
}

func (c *RollbackCmd) Run(ctx context.Context, o *Output, t *target.Target, l *lambda.Client) error {
	if t.WithoutLambda() {
		return ui.WithHint(fmt.Errorf("the function of stack %s takes no tasks, and what does has no versions", t.Name),
			"git checkout the commit of the earlier image, then pulumi up")
	}
	if !strings.HasSuffix(t.FunctionARN, ":"+stack.Alias) {
		return fmt.Errorf("stack %s has one version of its worker only: a stack that Pulumi deployed has more", t.Name)
	}
	o.Changing(t)
	alias, err := l.GetAlias(ctx, &lambda.GetAliasInput{FunctionName: &t.FunctionName, Name: aws.String(stack.Alias)})
	if err != nil {
		return err
	}
	versions, err := published(ctx, l, t.FunctionName)
	if err != nil {
		return err
	}
	now := versionNumber(aws.ToString(alias.FunctionVersion))
	wanted := func(v types.FunctionConfiguration) bool {
		n := versionNumber(aws.ToString(v.Version))
		return c.To == 0 && n < now || n == c.To
	}
	versions = slices.DeleteFunc(versions, func(v types.FunctionConfiguration) bool { return !wanted(v) })
	switch {
	case len(versions) == 0 && c.To == 0:
		return fmt.Errorf("version %d works on the queue, and no earlier one is left", now)
	case len(versions) == 0:
		return ui.Usage("--to %d: the function has no such version", c.To)
	case c.To == now:
		return ui.Usage("--to %d: that version works on the queue already", c.To)
	}
	next := versions[len(versions)-1]
	if next.State == types.StateFailed {
		return fmt.Errorf("version %s cannot run: %s", *next.Version, aws.ToString(next.StateReason))
	}
	if _, err := l.UpdateAlias(ctx, &lambda.UpdateAliasInput{FunctionName: &t.FunctionName,
		Name: aws.String(stack.Alias), FunctionVersion: next.Version, RevisionId: alias.RevisionId}); err != nil {
		if errors.As(err, new(*types.PreconditionFailedException)) {
			return ui.WithHint(errors.New("somebody else has just changed the version"), "the same command")
		}
		return err
	}
	if t.FleetWorkers > 0 {
		o.Say("note: the stack's fleet keeps the newest image: pulumi config set fleetMaxWorkers 0, then pulumi up, sends it away")
	}
	r := rollback{Version: *next.Version, Was: strconv.Itoa(now)}
	if next.Environment != nil {
		r.Image = next.Environment.Variables[stack.EnvImage]
	}
	return o.Print(r, func(w io.Writer) {
		fmt.Fprintf(w, "version %s works on the queue from now on, %s did: image %s\n", r.Version, r.Was, r.Image)
		fmt.Fprintf(w, "back to the other: ops%s rollback --to %s\n", t.Flags(), r.Was)
	})
}

// published returns the versions of a function, the oldest first, without the unpublished one.
func published(ctx context.Context, l *lambda.Client, function string) (all []types.FunctionConfiguration, err error) {
	pages := lambda.NewListVersionsByFunctionPaginator(l, &lambda.ListVersionsByFunctionInput{FunctionName: &function})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Versions...)
	}
	all = slices.DeleteFunc(all, func(v types.FunctionConfiguration) bool {
		return versionNumber(aws.ToString(v.Version)) == 0
	})
	slices.SortFunc(all, func(a, b types.FunctionConfiguration) int {
		return cmp.Compare(versionNumber(*a.Version), versionNumber(*b.Version))
	})
	return all, nil
}

// versionNumber is 0 for what was not published.
func versionNumber(version string) int {
	n, _ := strconv.Atoi(version)
	return n
}
