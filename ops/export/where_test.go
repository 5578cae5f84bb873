package export

import (
	"errors"
	"strings"
	"testing"
)

// A condition sees what the generator wrote: NaN and Infinity, whole numbers as such, and null. What is not there leaves
// a sample out; what does not fit is an error.
func TestWhere(t *testing.T) {
	const metadata = `{"n": 4, "half": 0.5, "two": 2.0, "loss": NaN, "most": Infinity, "least": [-Infinity, 1e400],
		"nothing": null, "text": "NaN, \"Infinity\" \\", "big": 123456789012345678901234567890, "deep": {"list": [6, {"x": 9}]}}`
	for condition, want := range map[string]string{
		"n % 2 == 0":                     "yes",
		"two % 2 == 0":                   "yes",
		"deep.list[0] % 4 == 2":          "yes",
		"deep.list[1].x in [8, 9]":       "yes",
		"half * 2 == 1":                  "yes",
		"n / 8 == half":                  "yes",
		"loss != loss":                   "yes",
		"loss > 0":                       "no",
		"most > 1e300":                   "yes",
		"least[0] < -1e300":              "yes",
		"least[1] == most":               "yes",
		"big > 1e29":                     "yes",
		`text == "NaN, \"Infinity\" \\"`: "yes",
		`generator == "maze" and n == 4`: "yes",
		"n > 4":                          "no",
		"nothing > 1":                    "left out",
		"missing % 2 == 0":               "left out",
		"missing.x.y > 1":                "left out",
		"deep.list[7] > 1":               "left out",
		"deep.list.x == 1":               "left out",
		"text.x == 1":                    "left out",
		"metadata[0] == 1":               "left out",
		"not missing":                    "left out",
		"len(missing) > 1":               "left out",
		"any(missing, # > 1)":            "left out",
		"half % 2 == 0":                  `--where "half % 2 == 0": for maze_00000000 of maze it fails with invalid operation: float64 % int (1:6)`,
		"text > 3":                       `--where "text > 3": for maze_00000000 of maze it fails with invalid operation: string > int (1:6)`,
		"n + 1":                          `--where "n + 1": for maze_00000000 of maze it comes to 5 and not to true or false`,
	} {
		w, err := ParseCondition(condition)
		if err != nil {
			t.Errorf("%s: %v", condition, err)
			continue
		}
		yes, decided, err := w.Holds(&Row{ID: "maze_00000000", Generator: "maze", Metadata: metadata})
		got := map[bool]string{true: "yes", false: "no"}[yes]
		if !decided {
			got = "left out"
		}
		if _, ok := errors.AsType[*ConditionError](err); ok {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %s, %v, want %s", condition, got, err, want)
		}
	}
	for _, name := range []string{"now", "keys", "values", "toPairs"} { // which do not give the same each time
		w, err := ParseCondition(name + `(metadata)[0] == "a"`)
		if err == nil {
			_, _, err = w.Holds(&Row{ID: "maze_00000000", Generator: "maze", Metadata: metadata})
		}
		if err == nil || !strings.Contains(err.Error(), "cannot call nil") && name != "now" {
			t.Errorf("%s: %v", name, err)
		}
	}
	w, err := ParseCondition(`generator == "maze"`)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "\ufeff{}", "[NaN]", "-Infinity", `"NaN"`} {
		if yes, decided, err := w.Holds(&Row{Generator: "maze", Metadata: text}); !yes || !decided || err != nil {
			t.Errorf("%q: %v, %v, %v", text, yes, decided, err)
		}
	}
}
