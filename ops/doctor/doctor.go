// Package doctor checks that a stack can do its work.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inventory"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// Finding is what one check found.
type Finding struct {
	Check string `json:"check"`
	State string `json:"state"` // ok, problem, or skipped where it could not be found out
	Says  string `json:"says"`
	Try   string `json:"try,omitempty"`
}

// check is one check. run returns what is well, or an error with a hint.
type check struct {
	name string
	run  func(ctx context.Context) (says string, err error)
}

// skipped is the error of a check that could not be made, for a reason that is another check's problem or none.
type skipped string

func (s skipped) Error() string { return string(s) }

// wrong is the result of a check that found a problem, and the way out.
func wrong(way, format string, args ...any) (string, error) {
	return "", ui.WithHint(fmt.Errorf(format, args...), "%s", way)
}

// checkTimeout bounds one check: a service that cannot be reached is tried again and again by the SDK.
const checkTimeout = 20 * time.Second

// examine runs checks concurrently and returns their findings in order.
func examine(ctx context.Context, checks []check) ([]Finding, error) {
	findings := make([]Finding, len(checks))
	var group sync.WaitGroup
	for i, c := range checks {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, checkTimeout)
			defer cancel()
			says, err := c.run(ctx)
			findings[i] = finding(c.name, says, err)
		})
	}
	group.Wait()
	return findings, ctx.Err()
}

func finding(name, says string, err error) Finding {
	if err == nil {
		return Finding{Check: name, State: "ok", Says: says}
	}
	if s, ok := errors.AsType[skipped](err); ok {
		return Finding{Check: name, State: "skipped", Says: string(s)}
	}
	f := Finding{Check: name, State: "problem", Says: ui.Cut(ui.Plain(err), 400)}
	if h, ok := errors.AsType[*ui.Hint](err); ok {
		f.Try = h.Way
	} else {
		f.Try = cure(err)
	}
	return f
}

func cure(err error) string {
	if answer, ok := errors.AsType[smithy.APIError](err); ok {
		switch code := answer.ErrorCode(); code {
		case "AccessDenied", "AccessDeniedException", "AccessDeniedFault", "UnauthorizedOperation", "Forbidden":
			return "other credentials (AWS_PROFILE), or a policy that allows it"
		case "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException",
			"SignatureDoesNotMatch":
			return "aws sso login, or other credentials (AWS_PROFILE)"
		case "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NoSuchBucket", "ResourceNotFoundException",
			"RepositoryNotFoundException", "ImageNotFoundException", "NotFound":
			return "pulumi up --refresh makes again what is gone"
		}
	}
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, context.DeadlineExceeded) {
		return "check the network, a proxy, and AWS_ENDPOINT_URL"
	}
	return ""
}

// leastRoom is what the local stack needs on its disk to start with: the environment of the generators here takes 200
// MB, one that draws with matplotlib and OpenCV 700 MB, and a chunk under way some tens of MB.
const leastRoom = 1_000_000_000 // bytes

// Local checks the local stack, and what it needs before it is up.
func Local(ctx context.Context, f *target.Flags) ([]Finding, error) {
	checks := []check{
		{"python", func(ctx context.Context) (string, error) {
			path, version, err := environment.Interpreter(ctx)
			return fmt.Sprintf("%s is Python %s", path, version), err
		}},
		{"generators", func(context.Context) (string, error) { return checkGenerators(f) }},
		{"environments", func(context.Context) (string, error) { return checkEnvironments(f) }},
		{"disk", func(context.Context) (string, error) { return checkDisk(f.LocalDir, leastRoom) }},
	}
	t, err := target.Find(ctx, f, "")
	checks = append(checks, check{"stack", func(context.Context) (string, error) {
		pid, _ := local.PID(f.LocalDir)
		return fmt.Sprintf("process %d, in %s", pid, f.LocalDir), err
	}})
	if err != nil {
		return examine(ctx, checks)
	}
	d, err := newDoctor(ctx, f, t)
	if err != nil {
		return nil, err
	}
	return examine(ctx, append(checks, check{"queue", d.queue}, check{"dlq", d.dlq}, check{"bucket", d.bucket},
		check{"workers", d.workers}, check{"mapping", d.mapping}))
}

func checkGenerators(f *target.Flags) (string, error) {
	list, err := inventory.Inventory{Flags: f}.Folder()
	if err != nil {
		return "", err
	}
	for _, x := range list {
		if x.Problem != "" {
			return wrong("ops generators list", "%s: %s", x.Name, x.Problem)
		}
	}
	if len(list) == 0 {
		return wrong("a folder there with examples/generate.py", "there are none in %s", f.Generators)
	}
	return fmt.Sprintf("%d in %s", len(list), f.Generators), nil
}

// checkEnvironments checks the environments that exist. Others are made when they are needed.
func checkEnvironments(f *target.Flags) (string, error) {
	list, err := inventory.Inventory{Flags: f}.Folder()
	if err != nil {
		return "", skipped("there are no generators to make them for")
	}
	dir := filepath.Join(f.LocalDir, "generators")
	if _, err := os.Stat(filepath.Join(dir, generator.IndexFile)); errors.Is(err, fs.ErrNotExist) {
		return "none is made yet; the first run makes them", nil
	}
	index, err := generator.LoadIndex(dir)
	if err != nil {
		return "", ui.WithHint(err, "ops local up makes it again")
	}
	ready := 0
	for _, x := range list {
		made, err := index.Find(x.Name)
		if err != nil {
			continue
		}
		if made.Problem != "" {
			return wrong("ops local up, which tries again", "%s: %s", x.Name, made.Problem)
		}
		if _, err := os.Stat(made.Python); err != nil {
			return wrong("ops local up makes its environment again", "%s: its Python is gone: %w", x.Name, err)
		}
		ready++
	}
	says := fmt.Sprintf("ready for %d of %s", ready, ui.Plural(len(list), "generator"))
	if ready < len(list) {
		says += "; the next run makes what is missing"
	}
	return says, nil
}

// checkDisk checks that the disk that the local stack writes to, or will, has so many bytes left.
func checkDisk(dir string, least int64) (string, error) {
	var room syscall.Statfs_t
	at := dir
	err := syscall.Statfs(at, &room)
	for errors.Is(err, fs.ErrNotExist) && filepath.Dir(at) != at {
		at = filepath.Dir(at)
		err = syscall.Statfs(at, &room)
	}
	if err != nil {
		return "", fmt.Errorf("check the disk of %s: %w", dir, err)
	}
	free := int64(room.Bavail) * int64(room.Bsize) //nolint:unconvert // other types on other systems
	if free < least {
		return wrong("make room, or another disk with --local-dir", "%s has %s left, a run needs %s to start with", at,
			ui.Size(free), ui.Size(least))
	}
	return ui.Size(free) + " left", nil
}

func (d *doctor) workers(ctx context.Context) (string, error) {
	out, err := d.lambda.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &d.t.FunctionName})
	if err != nil {
		return "", err
	}
	if out.Configuration.State != types.StateActive {
		return wrong("the same in a moment; then "+filepath.Join(d.flags.LocalDir, "logs", "worker-*.log"), "%s",
			aws.ToString(out.Configuration.StateReason))
	}
	return ui.Plural(int(aws.ToInt32(out.Concurrency.ReservedConcurrentExecutions)), "worker") + " ready", nil
}
