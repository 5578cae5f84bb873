package export

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
)

// where is a condition on the metadata of samples.
type where struct {
	text    string
	program *vm.Program
}

// parseWhere reads a condition, such as difficulty >= 3. An empty one is nil.
func parseWhere(text string) (*where, error) {
	if text == "" {
		return nil, nil
	}
	// A condition must say the same whenever it is asked.
	options := []expr.Option{expr.AllowUndefinedVariables(), expr.DisableBuiltin("now")}
	_, err := expr.Compile(text, append(options, expr.AsBool())...)
	if err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n")
		return nil, fmt.Errorf("--where %q: %s", text, line)
	}
	program, err := expr.Compile(text, options...) // which says what else a value is than true or false
	if err != nil {
		return nil, err
	}
	return &where{text, program}, nil
}

// CheckWhere reports what is wrong with a condition, or nil.
func CheckWhere(text string) error {
	_, err := parseWhere(text)
	return err
}

// holds reports whether a sample is wanted; decided is false if its metadata does not have
// what the condition asks for, or has something of another type.
func (w *where) holds(r *Row) (yes, decided bool, err error) {
	var metadata any
	if json.Unmarshal([]byte(r.Metadata), &metadata) != nil {
		return false, false, nil
	}
	env := map[string]any{}
	if fields, ok := metadata.(map[string]any); ok {
		env = fields
	}
	for name, value := range map[string]any{"metadata": metadata, "generator": r.Generator} {
		if _, ok := env[name]; !ok {
			env[name] = value
		}
	}
	answer, failed := expr.Run(w.program, env)
	if failed != nil || answer == nil {
		return false, false, nil
	}
	yes, ok := answer.(bool)
	if !ok {
		return false, false, fmt.Errorf("--where %q: it comes to %v and not to true or false", w.text, answer)
	}
	return yes, true, nil
}
