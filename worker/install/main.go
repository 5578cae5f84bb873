// Command install puts the generators into the worker's image while that is
// built, with the code that the local stack uses.
//
//	install requirements FROM TO  copies from the generators in FROM what environments are made from
//	install environments FROM TO  makes the environments of what was copied
//	install generators FROM TO    makes the environments and the index of the generators in FROM
//
// It is a program of its own and not a part of bootstrap, so that a change of the
// worker leaves the environments as they are. A generator whose environment cannot
// be made is in the index with the reason, and the others work; only where none is
// left the build fails.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// commitsVariable holds the commits of the generators as a JSON object, names to
// commits: an image's build context has no git history.
const commitsVariable = "GENERATOR_COMMITS"

func main() {
	generator.Main() // becomes the sandbox launcher of a generator if it was started as one
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: install requirements|environments|generators FROM TO")
		return 80
	}
	var err error
	switch from, to := os.Args[2], os.Args[3]; os.Args[1] {
	case "requirements":
		err = generator.CopyRequirements(from, to)
	case "environments":
		_, err = install(ctx, from, to)
	case "generators":
		var ready int
		if ready, err = install(ctx, from, to); err == nil && ready == 0 {
			err = errors.New("no generator is ready")
		}
	default:
		fmt.Fprintf(os.Stderr, "install: %q is neither requirements nor environments nor generators\n", os.Args[1])
		return 80
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "install:", err)
		return 1
	}
	return 0
}

// install makes environments and index, and returns how many generators are ready.
func install(ctx context.Context, from, to string) (ready int, err error) {
	var commits map[string]string
	if text := os.Getenv(commitsVariable); text != "" {
		if err := json.Unmarshal([]byte(text), &commits); err != nil {
			return 0, fmt.Errorf("%s is not a JSON object of names and commits: %w", commitsVariable, err)
		}
	}
	made := 0
	b := generator.Builder{Root: from, Dir: to, Commits: commits, Imports: true, Progress: func(line string) { fmt.Println(line) }, Events: func(e generator.Event) {
		if e.Stage == generator.Ready && len(e.Generators) > 0 {
			made++
		}
	}}
	index, err := b.Build(ctx)
	if err != nil {
		return 0, err
	}
	for _, g := range index.Generators {
		if g.Problem == "" {
			ready++
			continue
		}
		fmt.Fprintf(os.Stderr, "WARNING: generator %s is in the image and cannot run: %s\n", g.Name, g.Problem)
	}
	fmt.Printf("%d of %d generators are ready, %d environments were made\n", ready, len(index.Generators), made)
	return ready, nil
}
