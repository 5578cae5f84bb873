package infra_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	"go.yaml.in/yaml/v3"

	"github.com/vm-dataset/vm-dataset-pipeline/infra"
)

// Pulumi.yaml declares every key that it can with the program's own default, and docs/AWS.md has them all.
func TestDeclaredSettings(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "Pulumi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Name   string
		Config map[string]any
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	defaults := map[string]string{}
	var keys []string
	for key, v := range file.Config {
		if strings.HasPrefix(key, "aws:") {
			continue
		}
		d, _ := v.(map[string]any)
		if d["type"] == nil || d["default"] == nil || d["description"] == nil {
			t.Errorf("%s is declared as %v", key, v)
		}
		keys = append(keys, key)
		defaults[key] = fmt.Sprint(d["default"])
		if _, ok := d["default"].([]any); ok {
			text, _ := json.Marshal(d["default"])
			defaults[key] = string(text)
		}
	}
	if got, want := load(t, file.Name, defaults), load(t, file.Name, nil); !reflect.DeepEqual(got, want) {
		t.Errorf("with the defaults of Pulumi.yaml  %+v\nof the program %+v", got, want)
	}
	page, err := os.ReadFile(filepath.Join("..", "docs", "AWS.md"))
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+`) \\| .* \\| ").FindAllStringSubmatch(string(page), -1) {
		for key := range strings.SplitSeq(row[1], ", ") {
			documented = append(documented, strings.Trim(key, "`"))
		}
	}
	keys = append(keys, "tags", "allowedAccountIds", "memoryMB", "maxConcurrency", "aws:region")
	slices.Sort(keys)
	slices.Sort(documented)
	if !slices.Equal(keys, documented) {
		t.Errorf("Pulumi.yaml has %v\ndocs/AWS.md has %v", keys, documented)
	}
}

// load reads a configuration, given as the CLI gives it.
func load(t *testing.T, project string, config map[string]string) *infra.Config {
	t.Helper()
	all := map[string]string{}
	for key, value := range config {
		all[project+":"+key] = value
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(pulumi.EnvConfig, string(text))
	var c *infra.Config
	if err := pulumi.RunErr(func(ctx *pulumi.Context) (err error) {
		c, err = infra.LoadConfig(ctx)
		return err
	}, pulumi.WithMocks(project, stackName, usual())); err != nil {
		t.Fatal(err)
	}
	return c
}
