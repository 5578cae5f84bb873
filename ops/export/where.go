package export

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"
)

// Condition is what --where asks of a sample's metadata.
type Condition struct {
	text    string
	program *vm.Program
}

// ParseCondition reads a condition, such as difficulty >= 3. An empty one is nil.
func ParseCondition(text string) (*Condition, error) {
	if text == "" {
		return nil, nil
	}
	// A condition must say the same whenever it is asked: without the time, and without what has the order of a map.
	options := []expr.Option{expr.AllowUndefinedVariables()}
	for _, name := range []string{"now", "keys", "values", "toPairs"} {
		options = append(options, expr.DisableBuiltin(name))
	}
	_, err := expr.Compile(text, append(options, expr.AsBool())...)
	if err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n")
		return nil, fmt.Errorf("--where %q: %s", text, line)
	}
	program, err := expr.Compile(text, options...) // which says what else a value is than true or false
	if err != nil {
		return nil, err
	}
	return &Condition{text, program}, nil
}

// ConditionError says that a condition does not fit the metadata of a sample.
type ConditionError struct{ reason string }

func (e *ConditionError) Error() string { return e.reason }

// WantsFile reports whether a condition needs a file of a sample.
func (*Condition) WantsFile(name string) bool { return name == metadataFile }

// Holds reports whether a sample is like that; decided is false if its metadata do not have what the condition asks
// for. The error is a *ConditionError if the condition does not fit.
func (w *Condition) Holds(r *Row) (yes, decided bool, err error) {
	fail := func(format string, args ...any) error {
		return &ConditionError{fmt.Sprintf("--where %q: for %s of %s ", w.text, r.ID, r.Generator) +
			fmt.Sprintf(format, args...)}
	}
	metadata, err := decodeMetadata(r.Metadata)
	if err != nil {
		return false, false, fmt.Errorf("metadata.json of %s of %s cannot be read: %w", r.ID, r.Generator, err)
	}
	env := map[string]any{}
	if fields, ok := metadata.(map[string]any); ok {
		env = maps.Clone(fields)
	}
	for name, value := range map[string]any{"metadata": metadata, "generator": r.Generator} {
		if _, ok := env[name]; !ok {
			env[name] = value
		}
	}
	answer, failed := expr.Run(w.program, env)
	if failed != nil && !isUndefined(failed) {
		line, _, _ := strings.Cut(failed.Error(), "\n")
		return false, false, fail("it fails with %s", line)
	}
	if failed != nil || answer == nil {
		return false, false, nil
	}
	yes, ok := answer.(bool)
	if !ok {
		return false, false, fail("it comes to %v and not to true or false", answer)
	}
	return yes, true, nil
}

// undefined are the texts of expr's errors where a field is not there or null: as an operand or an argument, and
// where it is asked for in what has no fields, or not so many items.
var undefined = []string{"<nil>", "is nil", "zero Value", "cannot fetch", "index out of range", "MapIndex",
	"invalid operation: int(string)"}

func isUndefined(err error) bool {
	e, ok := errors.AsType[*file.Error](err)
	return ok && slices.ContainsFunc(undefined, func(text string) bool { return strings.Contains(e.Message, text) })
}

// nan stands for NaN, which JSON does not have: nobody else writes a zero in this way.
const nan = "-0e-999999999"

var stringOrNoNumber = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*"|NaN|Infinity`)

// decodeMetadata decodes what Python's json reads, with NaN and Infinity. Whole numbers are int, which % needs.
func decodeMetadata(text string) (any, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // the sample has no metadata.json
	}
	text = stringOrNoNumber.ReplaceAllStringFunc(strings.TrimPrefix(text, "\ufeff"), func(token string) string {
		return cmp.Or(map[string]string{"NaN": nan, "Infinity": "1e999"}[token], token)
	})
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var value any
	err := decoder.Decode(&value)
	return withNumbers(value), err
}

func withNumbers(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for name := range v {
			v[name] = withNumbers(v[name])
		}
	case []any:
		for i := range v {
			v[i] = withNumbers(v[i])
		}
	case json.Number:
		if v == nan {
			return math.NaN()
		}
		if n, err := strconv.Atoi(v.String()); err == nil {
			return n
		}
		f, _ := v.Float64() // what is too large is infinite, as in Python
		if n := int(f); math.Abs(f) < 1<<53 && float64(n) == f {
			return n
		}
		return f
	}
	return value
}
