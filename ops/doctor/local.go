package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inventory"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

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
