package inventory

import (
	"reflect"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// Commits that are known on both sides must be the same.
func TestCompare(t *testing.T) {
	t.Parallel()
	here := []generator.Generator{{Name: "same", Commit: "a"}, {Name: "changed", Commit: "b-dirty"}, {Name: "unknown"},
		{Name: "forgotten", Commit: "a"},
		{Name: "new"}, {Name: "broken", Problem: "its name"}}
	d := Compare(here, map[string]string{"same": "a", "changed": "b", "unknown": "a", "forgotten": "", "other": "a"})
	if want := (Difference{Local: []string{"new"}, Image: []string{"other"},
		Changed: []string{"changed"}}); !reflect.DeepEqual(d, want) {
		t.Errorf("%+v, want %+v", d, want)
	}
}
