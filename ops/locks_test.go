package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator/indextest"
)

// TestLockScripts plays the dialogues in testdata/lock. Each has a package index of
// its own, what it publishes there with "publish MODULE VERSION SOURCE", and the real
// installer; "unplug" takes the index away.
func TestLockScripts(t *testing.T) {
	uv, err := indextest.UV(generator.UVRelease)
	if err != nil {
		t.Fatal(err)
	}
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
			e.Setenv("PATH", uv+string(os.PathListSeparator)+e.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "up": waitUp, "edit": editFile, "capture": capture,
			"publish": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Check(indextest.Wheel(ts.MkAbs("index"), args[0], args[1], strings.Join(args[2:], " ")+"\n"))
			},
			"unplug": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Value("index").(*httptest.Server).Close()
			},
		},
	})
}
