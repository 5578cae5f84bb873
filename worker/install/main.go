// Command install puts the generators into the worker's image while that is built, with the code of the local stack.
//
//	install requirements FROM TO  copies from the generators in FROM what environments are made from
//	install environments FROM TO  makes the environments of what was copied
//	install generators FROM TO    makes the environments and the index of the generators in FROM
//
// It is a program of its own and not a part of bootstrap, so that a change of the worker leaves the environments as
// they are. A generator whose environment cannot be made is in the index with the reason, and the others work. The
// build fails where none is left, and where a package index could not be reached: Docker keeps what was built for the
// next time, when the network is there again.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// commitsVariable holds the generators' commits as a JSON object by name: an image's build context has no git history.
const commitsVariable = "GENERATOR_COMMITS"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) != 3 {
		fmt.Fprintln(stderr, "usage: install requirements|environments|generators FROM TO")
		return 80
	}
	var err error
	switch from, to := args[1], args[2]; args[0] {
	case "requirements":
		err = environment.CopyRequirements(from, to)
	case "environments":
		_, err = install(ctx, from, to, stdout)
	case "generators":
		var index *generator.Index
		if index, err = install(ctx, from, to, stdout); err == nil {
			err = judge(index, stdout, stderr)
		}
	default:
		fmt.Fprintf(stderr, "install: %q is neither requirements nor environments nor generators\n", args[0])
		return 80
	}
	if err != nil {
		fmt.Fprintln(stderr, "install:", err)
		return 1
	}
	return 0
}

func install(ctx context.Context, from, to string, stdout io.Writer) (*generator.Index, error) {
	var commits map[string]string
	if text := os.Getenv(commitsVariable); text != "" {
		if err := json.Unmarshal([]byte(text), &commits); err != nil {
			return nil, fmt.Errorf("%s is not a JSON object of names and commits: %w", commitsVariable, err)
		}
	}
	made := 0
	b := environment.Builder{Root: from, Dir: to, Commits: commits, Image: true,
		Progress: func(line string) { fmt.Fprintln(stdout, line) }, Events: func(e environment.Event) {
			if e.Stage == environment.Ready && len(e.Generators) > 0 {
				made++
			}
		}}
	index, err := b.Build(ctx)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(stdout, "%d environments were made\n", made)
	return index, nil
}

// judge reports which generators are not ready. It is for the last step, which has tried all of them once more.
func judge(index *generator.Index, stdout, stderr io.Writer) error {
	ready := 0
	for _, g := range index.Generators {
		if g.Problem == "" {
			ready++
			continue
		}
		fmt.Fprintf(stderr, "WARNING: generator %s is in the image and cannot run: %s\n", g.Name, g.Problem)
	}
	fmt.Fprintf(stdout, "%d of %d generators are ready\n", ready, len(index.Generators))
	if ready == 0 {
		return errors.New("no generator is ready")
	}
	return nil
}
