package main

import (
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
	versions, err := t.Versions(ctx, l)
	if err != nil {
		return err
	}
	now, _ := strconv.Atoi(aws.ToString(alias.FunctionVersion))
	versions = slices.DeleteFunc(versions, func(v types.FunctionConfiguration) bool {
		n := target.VersionNumber(&v)
		return n == 0 || n != c.To && (c.To != 0 || n >= now)
	})
	switch {
	case len(versions) == 0 && c.To == 0:
		return fmt.Errorf("version %d works on the queue, and no earlier one is left", now)
	case len(versions) == 0:
		return ui.Usage("--to %d: the function has no such version", c.To)
	case c.To == now:
		return ui.Usage("--to %d: that version works on the queue already", c.To)
	}
	next := slices.MaxFunc(versions, func(a, b types.FunctionConfiguration) int {
		return target.VersionNumber(&a) - target.VersionNumber(&b)
	})
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
		o.Say("note: the stack's fleet keeps the newest image: pulumi config set fleetMaxWorkers 0, then pulumi up, sends " +
			"it away")
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
