package infra_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the account does not take is refused before there is any resource.
func TestAccountLimits(t *testing.T) {
	root := repository(t, "maze")
	for _, test := range []struct {
		name   string
		quota  float64 // 0 does not say
		region string
		config map[string]string
		want   string // "" deploys
	}{
		{"the defaults", 1000, "us-east-2", nil, ""},
		{"a starter in a new account", 10, "us-east-2", map[string]string{"size": "starter"}, ""},
		{"the defaults in a new account", 10, "us-east-2", nil,
			"maxConcurrency is 900, but the account may have 10 workers at once: pulumi config set size starter, or ask AWS"},
		{"many workers in a new account", 10, "us-east-2", map[string]string{"size": "starter", "maxConcurrency": "11"},
			"maxConcurrency is 11, but the account may have 10 workers at once: pulumi config set maxConcurrency 10"},
		{"no workers in Lambda in a new account", 10, "us-east-2", map[string]string{"lambda": "false",
			"fleetMaxWorkers": "5", "fleetSubnets": `["subnet-0123456789abcdef0"]`}, ""},
		{"none in Lambda, and many reserved", 1000, "us-east-2", map[string]string{"lambda": "false", "reservedConcurrency": "950",
			"fleetMaxWorkers": "5", "fleetSubnets": `["subnet-0123456789abcdef0"]`}, ""},
		{"an account that does not say", 0, "us-east-2", nil, ""},
		{"reserved in a new account", 10, "us-east-2", map[string]string{"size": "starter", "reservedConcurrency": "10"},
			"reservedConcurrency is 10, but the account may have 10 workers at once and can reserve at most 0"},
		{"all reserved", 1000, "us-east-2", map[string]string{"reservedConcurrency": "901"}, "can reserve at most 900"},
		{"most reserved", 1000, "us-east-2", map[string]string{"reservedConcurrency": "900"}, ""},
		{"a budget in GovCloud", 1000, "us-gov-west-1", map[string]string{"monthlyBudgetUSD": "5",
			"alarmEmail": "a@example.com"}, "monthlyBudgetUSD is 5, but us-gov-west-1 has no AWS Budgets"},
	} {
		d := usual()
		d.quota, d.region = test.quota, test.region
		err := d.deploy(t, root, stackName, test.config)
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
				continue
			}
			f := d.the(t, "aws:lambda/function:Function", worker)
			if test.config["lambda"] == "false" && f.at("reservedConcurrentExecutions") != nil {
				t.Errorf("%s: the function reserves %v", test.name, f.at("reservedConcurrentExecutions"))
			}
		} else if err == nil || !strings.Contains(err.Error(), test.want) || len(d.resources) > 0 {
			t.Errorf("%s: %v, with %d resources\nwant %s", test.name, err, len(d.resources), test.want)
		}
	}
}

// Links and what is there differ in other partitions.
func TestPartitions(t *testing.T) {
	for region, want := range map[string]struct {
		console   string
		recursion int
		source    string
	}{
		"us-east-2":     {"https://us-east-2.console.aws.amazon.com/", 1, "arn:aws:lambda:us-east-2:"},
		"cn-north-1":    {"https://console.amazonaws.cn/", 0, "arn:aws-cn:lambda:cn-north-1:"},
		"us-gov-west-1": {"https://console.amazonaws-us-gov.com/", 0, "arn:aws-us-gov:lambda:us-gov-west-1:"},
	} {
		d := usual()
		d.region = region
		if err := d.deploy(t, repository(t, "maze"), stackName, nil); err != nil {
			t.Fatal(err)
		}
		if url := fmt.Sprint(d.outputs["dashboardUrl"]); !strings.HasPrefix(url, want.console) ||
			!strings.Contains(url, "region="+region+"#") {
			t.Errorf("%s: the dashboard is at %s", region, url)
		}
		if n := len(d.all("aws:lambda/functionRecursionConfig:FunctionRecursionConfig")); n != want.recursion {
			t.Errorf("%s: %d settings of recursion", region, n)
		}
		if p := fmt.Sprint(d.the(t, "aws:ecr/repositoryPolicy:RepositoryPolicy", name+"-image-pull").at("policy")); !strings.Contains(
			p, want.source) {
			t.Errorf("%s: Lambda may pull by %s", region, p)
		}
	}
}

// Keys that differ in case only are one key for AWS: the user's is left.
func TestTagsThatDifferInCase(t *testing.T) {
	for _, test := range []struct {
		defaults, tags string
		want           map[string]any
		cost           string // the tag of the budget
	}{
		{"", `{"Project":"p","team":"a"}`, map[string]any{"Project": "p", "team": "a", "stack": "dev"}, "user:stack$dev"},
		{`{"tags":{"PROJECT":"p","Stack":"shared"}}`, "", map[string]any{}, "user:Stack$shared"},
		{`{"tags":{"Team":"b","stack":7}}`, `{"team":"a"}`, map[string]any{"Team": "a", "project": project}, "user:stack$7"},
		{`{"tags":{"owner":"x"}}`, `{"STACK":"y"}`, map[string]any{"STACK": "y", "project": project}, "user:STACK$y"},
	} {
		config := map[string]string{"monthlyBudgetUSD": "5", "alarmEmail": "a@example.com"}
		maps.Copy(config, map[string]string{"aws:defaultTags": test.defaults, "tags": test.tags})
		maps.DeleteFunc(config, func(_, v string) bool { return v == "" })
		d := deploy(t, config)
		role := d.the(t, "aws:iam/role:Role", worker)
		if got, _ := role.at("tags").(map[string]any); !maps.Equal(got, test.want) {
			t.Errorf("default tags %s and tags %s make %v, want %v", test.defaults, test.tags, got, test.want)
		}
		d.the(t, "aws:budgets/budget:Budget", name+"-watch").want(t, map[string]any{"costFilters.0.values.0": test.cost,
			"limitAmount": "5", "notifications.0.subscriberEmailAddresses": []any{"a@example.com"}})
	}
}

// A bucket that an earlier stack has left is taken over as it is.
func TestAdoptBucket(t *testing.T) {
	d := deploy(t, map[string]string{"adoptBucket": "vm-dataset-old-data-1234567"})
	b := d.the(t, "aws:s3/bucketV2:BucketV2", bucket)
	b.want(t, map[string]any{"bucket": "vm-dataset-old-data-1234567"})
	if b.Import != "vm-dataset-old-data-1234567" || !b.Retain || strings.Join(b.Ignores, " ") != "tags tagsAll" {
		t.Errorf("%+v", b)
	}
	for _, test := range []struct {
		config map[string]string
		want   string
	}{
		{map[string]string{"adoptBucket": "aaa", "bucketName": "bbb"}, `adoptBucket is "aaa", but bucketName is "bbb"`},
		{map[string]string{"adoptBucket": "aaa", "retainData": "false"}, "retainData is false, it must be true with adoptBucket"},
	} {
		if _, err := try(t, repository(t, "maze"), stackName, test.config); err == nil ||
			!strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v", test.config, err)
		}
	}
}

// Another name would be another bucket, without the samples.
func TestBucketIsNotChanged(t *testing.T) {
	d := usual()
	d.bucket = "has-samples"
	err := d.deploy(t, repository(t, "maze"), stackName, map[string]string{"bucketName": "new-name"})
	if want := project + `:bucketName is "new-name", but the stack has the bucket "has-samples" and keeps it`; err == nil ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("%v\nwant %s", err, want)
	}
	// To adopt another is no way round it: nothing of the bucket is registered.
	d = usual()
	d.bucket = "has-samples"
	err = d.deploy(t, repository(t, "maze"), stackName, map[string]string{"adoptBucket": "new-name"})
	if want := project + `:adoptBucket is "new-name", but the stack has the bucket "has-samples" and keeps it: pulumi config rm`; err == nil ||
		!strings.Contains(err.Error(), want) || len(d.all("aws:s3/bucketV2:BucketV2")) > 0 {
		t.Errorf("%v\nwant %s", err, want)
	}
	d = usual()
	d.bucket = "has-samples"
	if err = d.deploy(t, repository(t, "maze"), stackName, map[string]string{"adoptBucket": "has-samples"}); err != nil {
		t.Errorf("the bucket that the stack has adopted: %v", err)
	}
}

// Docker answers nonsense for a digest at times; no function is made of it.
func TestNoDigest(t *testing.T) {
	d := usual()
	d.digest = "<none>"
	err := d.deploy(t, repository(t, "maze"), stackName, nil)
	if err == nil || !strings.Contains(err.Error(), "in place of its repository and digest: switch off the daemon's containerd") ||
		len(d.all("aws:lambda/function:Function")) > 0 {
		t.Errorf("%v", err)
	}
}

// What would make the image depend on the machine, or stop its build, does not reach Docker.
func TestSources(t *testing.T) {
	root := repository(t, "maze")
	file := filepath.Join(root, "generators", "maze", "examples", "generate.py")
	for _, link := range []string{"generators/maze/.venv/python", "generators/.fetch/x", "generators/maze/good",
		"ops/web/testdata/x"} {
		link = filepath.Join(root, link)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		target := "/nowhere"
		if filepath.Base(link) == "good" {
			target = "examples"
		}
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	main := filepath.Join(root, "ops", "main.go") // of the fleet's image
	if err := os.WriteFile(main, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]os.FileMode{0o600: 0o644, 0o664: 0o644, 0o775: 0o755, 0o700: 0o755} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		previewed := usual()
		previewed.preview = true
		if err := previewed.deploy(t, root, stackName, nil); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != mode {
			t.Errorf("a preview changed %v to %v, %v", mode, info.Mode(), err)
		}
		if _, err := try(t, root, stackName, nil); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != want {
			t.Errorf("%v became %v, %v", mode, info.Mode(), err)
		}
	}
	if info, err := os.Stat(main); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("a file of the fleet's image has the mode %v, %v", info.Mode(), err)
	}
	if err := os.Symlink("../nothing", filepath.Join(root, "generators", "maze", "dangling")); err != nil {
		t.Fatal(err)
	}
	d, err := try(t, root, stackName, nil)
	if err == nil || !strings.Contains(err.Error(), "generators/maze/dangling points to nothing") || len(d.resources) > 0 {
		t.Errorf("%v", err)
	}
}
