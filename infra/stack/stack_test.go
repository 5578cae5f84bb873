package stack_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
)

// The outputs that a stack writes are those that are read again.
func TestNames(t *testing.T) {
	all := map[string]any{}
	for _, name := range stack.Names() {
		all[name] = name
	}
	all["memoryMB"], all["generators"], all["locks"] = 10240, map[string]string{"maze": "abc", "chess": ""},
		map[string]string{"maze": "def"}
	all["fleetWorkers"], all["retainData"] = 20, false
	all["requiredFiles"] = []string{"rubric.txt"}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	o, err := stack.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	v := reflect.ValueOf(o)
	for i := range v.NumField() {
		if f := v.Type().Field(i); !f.Anonymous && v.Field(i).IsZero() {
			t.Errorf("%s was not read", f.Name)
		}
	}
	if o.Endpoints != (stack.Endpoints{}) {
		t.Errorf("a deployed stack has endpoints: %+v", o.Endpoints)
	}
	again, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var names map[string]any
	if err := json.Unmarshal(again, &names); err != nil {
		t.Fatal(err)
	}
	for name := range names {
		if !slices.Contains(stack.Names(), name) {
			t.Errorf("%s is written but not named", name)
		}
	}
}

func TestParse(t *testing.T) {
	for text, word := range map[string]string{
		`{}`:             "lack queueUrl, dlqUrl, bucketName, region: was the stack deployed?",
		`not JSON`:       "not the JSON",
		`{"queueUrl":1}`: "not the JSON",
		`{"queueUrl":"q","dlqUrl":"d","bucketName":"b"}`: "lack region",
	} {
		if _, err := stack.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
