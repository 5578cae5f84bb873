package infra_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// A wrong value is refused, by name and in one sentence, before there is any resource.
func TestConfigErrors(t *testing.T) {
	root := repository(t, "maze")
	for _, test := range []struct{ key, value, want string }{
		{"memoryMB", "127", `memoryMB is 127, it must be an integer from 128 to 10240`},
		{"memoryMB", "10241", "from 128 to 10240"},
		{"memoryMB", "lots", `memoryMB is "lots", it must be an integer from 128 to 10240`},
		{"memoryMB", "1e3", "integer"},
		{"timeoutSeconds", "0", "from 1 to 900"},
		{"timeoutSeconds", "901", "from 1 to 900"},
		{"ephemeralStorageMB", "511", "from 512 to 10240"},
		{"ephemeralStorageMB", "10241", "from 512 to 10240"},
		{"maxConcurrency", "1", "from 2 to 1000"},
		{"maxConcurrency", "1001", "from 2 to 1000"},
		{"architecture", "amd64", `architecture is "amd64", it must be x86_64 or arm64`},
		{"visibilityTimeoutSeconds", "900",
			"visibilityTimeoutSeconds is 900, it must be greater than timeoutSeconds, which is 900: "},
		{"visibilityTimeoutSeconds", "43201", "from 1 to 43200"},
		{"maxReceiveCount", "0", "from 1 to 1000"},
		{"maxReceiveCount", "1001", "from 1 to 1000"},
		{"queueRetentionSeconds", "59", "from 60 to 1209600"},
		{"queueRetentionSeconds", "960", "greater than visibilityTimeoutSeconds, which is 960"},
		{"queueRetentionSeconds", "1209600",
			"dlqRetentionSeconds is 1209600, it must be greater than queueRetentionSeconds, which is 1209600"},
		{"dlqRetentionSeconds", "1209601", "from 60 to 1209600"},
		{"dlqRetentionSeconds", "604800", "greater than queueRetentionSeconds, which is 604800"},
		{"bucketName", "Samples", `bucketName is "Samples", it must have 3 to 63 lower-case letters`},
		{"bucketName", "my.samples", "3 to 63"},
		{"bucketName", "ab", "3 to 63"},
		{"bucketName", "samples-", "begin and end"},
		{"bucketName", strings.Repeat("a", 64), "3 to 63"},
		{"bucketName", "xn--samples", "reserves"},
		{"bucketName", "samples-s3alias", "reserves"},
		{"retainData", "yes", `retainData is "yes", it must be true or false`},
		{"requiredFiles", "rubric.txt", `it must be a list of strings: pulumi config set --path 'requiredFiles[0]' VALUE`},
		{"requiredFiles", `["a/b"]`, `"a/b" must be the name of a file`},
		{"requiredFiles", `["a,b"]`, `"a,b" must be the name of a file`},
		{"requiredFiles", `[["a"]]`, "list of strings"},
		{"size", "large", `size is "large", it must be starter or full`},
		{"reservedConcurrency", "9", "reservedConcurrency is 9, it must be at least maxConcurrency, which is 900"},
		{"reservedConcurrency", "1001", "from 0 to 1000"},
		{"adoptBucket", "My", `adoptBucket is "My", it must have 3 to 63`},
		{"monthlyBudgetUSD", "50", "monthlyBudgetUSD is 50, it needs alarmEmail"},
		{"permissionsBoundary", "boundary", `permissionsBoundary is "boundary", it must be the ARN of a policy`},
		{"permissionsBoundary", "arn:aws:iam::aws:policy/PowerUserAccess", ""},
		{"allowedAccountIds", "[1234]", "allowedAccountIds is 1234, each must be an account's 12 digits"},
		{"allowedAccountIds", "123456789012", "it must be a list of strings"},
		{"allowedAccountIds", "[123456789012]", ""},
		{"allowedAccountIds", `["210987654321"]`, "allowedAccountIds is 210987654321, but the credentials are of account 123456789012"},
		{"builderImage", "a b", `builderImage is "a b", it must be a reference`},
		{"baseImage", "", ""},
		{"baseImage", "-x", `baseImage is "-x"`},
		{"logRetentionDays", "31", "logRetentionDays is 31, it must be one of those that CloudWatch takes: 1, 3, 5, 7, 14,"},
		{"logRetentionDays", "0", "from 1 to 3653"},
		{"alarmEmail", "team", `alarmEmail is "team", it must be an address`},
		{"alarmEmail", "Team <team@example.com>", "it must be an address"},
		{"tags", "team", `tags is "team", it must be a table: pulumi config set --path tags.NAME VALUE`},
		{"tags", `{"team":["a"]}`, `tags.team is ["a"], it must be a string`},
		{"tags", `{"aws:team":"a"}`, "no key begins with aws:"},
		{"tags", `{"team":"a;b"}`, `tags.team is "a;b"`},
		{"tags", `{"Team":"a","team":"b"}`, `tags.team is "b", but tags.Team differs from it in case only`},
		{"memory", "10240", `memory is 10240, but there is no such key; did you mean memoryMB?`},
		{"zzz", "1", `zzz is 1, but there is no such key; docs/AWS.md has the table of the keys`},
	} {
		d, err := try(t, root, stackName, map[string]string{test.key: test.value})
		switch {
		case test.want == "":
			if err != nil {
				t.Errorf("%s %q: %v", test.key, test.value, err)
			}
		case err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), project+":"):
			t.Errorf("%s %q: %v\nwant %s", test.key, test.value, err, test.want)
		case len(d.resources) > 0:
			t.Errorf("%s %q: %d resources were registered", test.key, test.value, len(d.resources))
		}
	}
}

// The outputs say by which lock the generators in the image are installed.
func TestLocks(t *testing.T) {
	root := repository(t, "maze", "chess")
	folder := filepath.Join(root, "generators")
	check := func(err error) {
		if t.Helper(); err != nil {
			t.Fatal(err)
		}
	}
	check(os.WriteFile(filepath.Join(folder, "maze", "requirements.txt"), []byte("numpy\n"), 0o644))
	list, err := generator.Discover(folder)
	check(err)
	maze := &list[slices.IndexFunc(list, func(g generator.Generator) bool { return g.Name == "maze" })]
	check(os.Mkdir(filepath.Join(folder, environment.LocksFolder), 0o755))
	check(os.WriteFile(filepath.Join(folder, environment.LocksFolder, environment.LockFile(maze)),
		[]byte("# for maze\nnumpy==2.1.0 --hash=sha256:00\n"), 0o644))
	want, err := environment.Locked(folder, maze)
	check(err)
	d, err := try(t, root, stackName, nil)
	check(err)
	if got := fmt.Sprint(d.outputs["locks"]); len(want) != 64 || got != "map[maze:"+want+"]" {
		t.Errorf("the stack says %s, want %s", got, want)
	}
}

// Everything that is wrong is said at once.
func TestConfigErrorsTogether(t *testing.T) {
	_, err := try(t, repository(t, "maze"), stackName, map[string]string{"memoryMB": "1", "retainData": "no",
		"colour": "red"})
	for _, want := range []string{"memoryMB", "retainData", "colour"} {
		if err == nil || !strings.Contains(err.Error(), project+":"+want+" is ") {
			t.Errorf("%s is not named: %v", want, err)
		}
	}
}

// The names of stack and folder are part of what is configured.
func TestSurroundings(t *testing.T) {
	for _, test := range []struct{ root, stack, want string }{
		{repository(t, "maze"), "Dev", `the name "vm-dataset-Dev"`},
		{repository(t, "maze"), "feature_1", `the name "vm-dataset-feature_1"`},
		{repository(t, "maze"), strings.Repeat("a", 30), "at most 40"},
		{repository(t, "maze"), "a--b", `the name "vm-dataset-a--b"`},
		{repository(t, "maze"), "-a", `the name "vm-dataset--a"`},
		{repository(t), stackName, "find generators"},
		{repository(t, "bad name"), stackName, "there is no generator in"},
	} {
		d, err := try(t, test.root, test.stack, nil)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.want, err)
		}
		if len(d.resources) > 0 {
			t.Errorf("%s: %d resources were registered", test.want, len(d.resources))
		}
	}
}
