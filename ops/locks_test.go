package main

import (
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment/indextest"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// TestLockScripts plays the dialogues in testdata/lock. Each has a package index of
// its own, what it publishes there with "publish MODULE VERSION SOURCE", and the real
// installer; "unplug" takes the index away.
func TestLockScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "lock"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			if err := setUp(e, false); err != nil {
				return err
			}
			server := httptest.NewServer(&indextest.Index{Dir: filepath.Join(e.WorkDir, "index")})
			t.Cleanup(server.Close)
			e.Values["index"] = server
			e.Setenv("UV_DEFAULT_INDEX", server.URL+"/simple")
			e.Setenv("UV_PYTHON_DOWNLOADS", "never")
			e.Setenv("PIP_CONFIG_FILE", os.DevNull)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "up": waitUp, "edit": editFile,
			"capture": capture,
			"publish": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Check(indextest.Wheel(ts.MkAbs("index"), args[0], args[1], strings.Join(args[2:], " ")+"\n"))
			},
			"unplug": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Value("index").(*httptest.Server).Close()
			},
		},
	})
}

// Who submits keeps the locks of the run's generators in the bucket, once, and those
// of no others; a dry run keeps none.
func TestSubmitKeepsLocks(t *testing.T) {
	t.Parallel()
	c, dir := newCloud(t), t.TempDir()
	folder := filepath.Join(dir, "generators")
	makeGenerators(t, folder, "maze-task", "chess-task")
	keep := func(name, requirement, text string) (hash string) {
		file := environment.LockFile(&generator.Generator{Requirements: []string{requirement}})
		if err := errors.Join(os.MkdirAll(filepath.Join(folder, environment.LocksFolder), 0o755),
			os.WriteFile(filepath.Join(folder, name, "requirements.txt"), []byte(requirement+"\n"), 0o644),
			os.WriteFile(filepath.Join(folder, environment.LocksFolder, file), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		return environment.LockHash([]byte(text))
	}
	maze, chess := keep("maze-task", "a", "# for maze-task\na==1 --hash=sha256:aa\n"),
		keep("chess-task", "b", "b==1 --hash=sha256:bb\n")
	submit := func(more ...string) {
		t.Helper()
		cmd, said := c.process(t, dir, append([]string{"submit", "--generator", "maze-task", "--samples", "2"}, more...)...)
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
	}
	submit("--dry-run")
	if _, err := c.store.Lock(t.Context(), maze); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after a dry run: %v", err)
	}
	submit()
	keep("maze-task", "a", "# for maze-task\n# for another\na==1 --hash=sha256:aa\n") // the same lock
	submit("--start", "2")
	if text, err := c.store.Lock(t.Context(), maze); err != nil ||
		string(text) != "# for maze-task\na==1 --hash=sha256:aa\n" {
		t.Errorf("the lock is %q, %v", text, err)
	}
	if _, err := c.store.Lock(t.Context(), chess); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of a generator that the run does not have: %v", err)
	}
}
