package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// inImage makes the working folder, with links to the generator's files as a worker
// does, because it may write next to itself and the image is read-only, and becomes
// the command.
const inImage = `import os, shutil, sys
source, work, argv = sys.argv[1], sys.argv[2], sys.argv[3:]
shutil.copytree(source, work, copy_function=os.symlink, ignore=shutil.ignore_patterns(".git"))
os.chdir(work)
os.execv(sys.executable, [sys.executable, *argv])
`

// LocksDir returns the folder of the locks of generators that have none in their own folder.
func LocksDir(dir string) string { return filepath.Join(generatorsDir(dir), environment.LocksFolder) }

// Remake makes the environment that a generator had, as environment.Builder does.
func Remake(ctx context.Context, dir, generators, name string, lock []byte, python string,
	progress func(string)) (*generator.Generator, error) {
	b := environment.Builder{Root: generators, Dir: generatorsDir(dir), Progress: progress}
	return b.Remake(ctx, name, lock, python)
}

// Rerun runs a command that a receipt holds in a container of the image, with the
// environment that a worker gives it and without a network. r.Generator is one of
// the image's. What it writes is in the folder output below r.Scratch.
func (i *Image) Rerun(ctx context.Context, r generator.Request) (generator.Result, error) {
	result := generator.Result{Command: r.Command, Output: filepath.Join(r.Scratch, "output")}
	if err := generator.CheckCommand(r.Command); err != nil {
		return result, err
	}
	for _, dir := range []string{"home", "tmp", "output"} {
		if err := os.Mkdir(filepath.Join(r.Scratch, dir), 0o700); err != nil {
			return result, err
		}
	}
	name := "vm-dataset-rerun-" + sqsserver.NewID()
	args := []string{"run", "--rm", "--name=" + name, "--network=none", "--ipc=none", "--read-only", "--cap-drop=ALL",
		"--security-opt=no-new-privileges",
		fmt.Sprintf("--user=%d:%d", os.Getuid(), os.Getgid()), "--volume=" + r.Scratch + ":" + r.Scratch,
		"--entrypoint=" + r.Generator.Python}
	for _, variable := range generator.Environ(r.Generator, r.Seed, r.Scratch) {
		args = append(args, "--env="+variable)
	}
	args = append(args, i.id, "-c", inImage, r.Generator.Dir, filepath.Join(r.Scratch, "work"))
	args = append(args, r.Command[1:len(r.Command)-1]...)
	began := time.Now()
	_, err := docker(ctx, append(args, result.Output)...)
	result.Wall = time.Since(began)
	if ctx.Err() != nil {
		killing, cancel := context.WithTimeout(context.WithoutCancel(ctx), dockerLimit)
		defer cancel()
		_, _ = docker(killing, "kill", name) // the client is gone, the container is not
		return result, ctx.Err()
	}
	if err != nil {
		return result, fmt.Errorf("run generator %s in %s: %w", r.Generator.Name, i.URI, err)
	}
	return result, nil
}
