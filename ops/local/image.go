package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// Limits of a worker in a container, in MB: the defaults of the function on AWS.
const (
	DefaultMemory = 10240 // Lambda's maximum
	DefaultTmp    = 512   // Lambda's minimum
)

// Image is a container image of the worker on this machine.
type Image struct {
	URI        string // repository@digest if it was pushed or pulled, else the image's id
	Generators []generator.Generator

	id string
}

// ErrNoImage says that an image is not on this machine.
var ErrNoImage = errors.New("it is not on this machine")

// FindImage finds an image on this machine and reads the index of its generators. Its
// error is ErrNoImage if the image is not here: nothing is pulled.
func FindImage(ctx context.Context, ref string) (*Image, error) {
	out, err := docker(ctx, "image", "inspect", "--format", `{"ID":{{json .Id}},"RepoDigests":{{json .RepoDigests}}}`, ref)
	if err != nil && strings.Contains(strings.ToLower(err.Error()), "no such image") {
		err = ErrNoImage
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	var found struct {
		ID          string
		RepoDigests []string
	}
	if err := json.Unmarshal(out, &found); err != nil {
		return nil, fmt.Errorf("image %s: docker image inspect: %w", ref, err)
	}
	text, err := docker(ctx, "run", "--rm", "--network=none", "--entrypoint=cat", found.ID, stack.DefaultGenerators+"/"+
		generator.IndexFile)
	if err != nil {
		return nil, fmt.Errorf("image %s is not one of the worker: %w", ref, err)
	}
	index, err := generator.ParseIndex(text)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	i := &Image{URI: found.ID, Generators: index.Generators, id: found.ID}
	if len(found.RepoDigests) > 0 {
		i.URI = found.RepoDigests[0]
	}
	return i, nil
}

// docker runs the docker command line and returns its stdout. An error has the last line of its stderr.
func docker(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second // what it started may hold its output
	out, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, errors.New("there is no docker on the PATH: install Docker, then run again")
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return nil, fmt.Errorf("docker %s: %s", args[0], lines[len(lines)-1])
	}
	return out, nil
}

// command returns the command that runs a worker of this image with Lambda's limits: a user who is in no passwd, a file
// system that cannot be written but for a small /tmp, no /dev/shm, and 1,024 open files and processes. Processes are
// limited by cgroup, because ulimit counts those of all containers of one user.
//
// The client process inherits the stack's lock, and its standard input is the
// worker's: when the stack is gone, so is the container, and then the lock.
func (i *Image) command(name string, c Config, env []string) *exec.Cmd {
	args := []string{"run", "--rm", "--interactive", "--name=" + name, "--label=vm-dataset.local=" + c.Dir,
		"--log-driver=none", "--user=993:990", "--read-only", "--ipc=none", "--cap-drop=ALL",
		"--security-opt=no-new-privileges", "--ulimit=nofile=1024:1024", "--pids-limit=1024",
		fmt.Sprintf("--tmpfs=/tmp:exec,mode=1777,size=%dm", c.Tmp), fmt.Sprintf("--memory=%dm", c.Memory),
		fmt.Sprintf("--memory-swap=%dm", c.Memory), "--network=host", // the endpoints are on loopback
	}
	for _, variable := range append(env, stack.EnvImage+"="+i.URI, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE="+
		strconv.Itoa(c.Memory)) {
		args = append(args, "--env="+variable)
	}
	cmd := exec.Command("docker", append(args, i.id)...)
	cmd.Env = os.Environ()
	return cmd
}

// inImage makes the working folder, with links to the generator's files as a worker does, because it may write next to
// itself and the image is read-only, and becomes the command.
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

// Rerun runs a command that a receipt holds in a container of the image, with the environment that a worker gives it
// and without a network. r.Generator is one of the image's. What it writes is in the folder output below r.Scratch.
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
