package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestPulumiScripts plays the dialogues in testdata/pulumi with the real Pulumi
// CLI.
func TestPulumiScripts(t *testing.T) {
	cli, err := exec.LookPath("pulumi")
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal("pulumi is not on the PATH, and CI must have it")
	case err != nil:
		t.Skip("pulumi is not on the PATH: there is no Pulumi CLI to ask")
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "pulumi"), RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			if err := setUp(e, false); err != nil {
				return err
			}
			e.Setenv("PATH", filepath.Dir(cli)+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("PULUMI_HOME", filepath.Join(e.WorkDir, "pulumi")) // the credentials; HOME does not count
			e.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			e.Setenv("PULUMI_SKIP_UPDATE_CHECK", "true")
			e.Setenv("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "true")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "state": setState},
	})
}

// setState gives a Pulumi stack outputs, as a deployment would: state dev '{"queueUrl":"..."}'
func setState(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(ts.Exec("pulumi", "stack", "export", "--stack", args[0], "--file", "state.json"))
	var state map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("state.json")), &state))
	const project = "vm-dataset"
	state["deployment"].(map[string]any)["resources"] = []map[string]any{{
		"urn":  "urn:pulumi:" + args[0] + "::" + project + "::pulumi:pulumi:Stack::" + project + "-" + args[0],
		"type": "pulumi:pulumi:Stack", "outputs": json.RawMessage(args[1]),
	}}
	text, err := json.Marshal(state)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("state.json"), text, 0o644))
	ts.Check(ts.Exec("pulumi", "stack", "import", "--stack", args[0], "--file", "state.json"))
}
