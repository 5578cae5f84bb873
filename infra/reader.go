package infra

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// reader reads the values of one namespace, and gathers what is wrong with them.
type reader struct {
	ctx    *pulumi.Context
	prefix string // of the keys: the project's name and a colon
	keys   []string
	errs   []error
}

// refuse notes that a value is not what is allowed. A string is quoted, unless it is JSON.
func (r *reader) refuse(key string, value any, format string, args ...any) {
	text := fmt.Sprint(value)
	if s, ok := value.(string); ok && !json.Valid([]byte(s)) {
		text = strconv.Quote(s)
	}
	r.errs = append(r.errs, fmt.Errorf("%s%s is %s, "+format, append([]any{r.prefix, key, text}, args...)...))
}

func (r *reader) get(key string) (string, bool) {
	r.keys = append(r.keys, key)
	return r.ctx.GetConfig(r.prefix + key)
}

func (r *reader) text(key string, to *string) {
	if v, ok := r.get(key); ok {
		*to = v
	}
}

func (r *reader) integer(key string, to *int, low, high int) {
	v, ok := r.get(key)
	if !ok {
		return
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		r.refuse(key, v, "it must be an integer from %d to %d", low, high)
		return
	}
	*to = n
}

func (r *reader) boolean(key string, to *bool) {
	switch v, ok := r.get(key); {
	case !ok:
	case v == "true" || v == "false":
		*to = v == "true"
	default:
		r.refuse(key, v, "it must be true or false")
	}
}

func (r *reader) list(key string, to *[]string) {
	v, ok := r.get(key)
	if !ok {
		return
	}
	var list []json.RawMessage
	valid := json.Unmarshal([]byte(v), &list) == nil
	*to = nil
	for _, raw := range list {
		text, ok := scalar(raw)
		valid = valid && ok
		*to = append(*to, text)
	}
	if !valid {
		r.refuse(key, v, "it must be a list of strings: pulumi config set --path '%s[0]' VALUE", key)
	}
}

// scalar is a text, or a number or truth value as Pulumi has it for a text that looks like one.
func scalar(raw json.RawMessage) (string, bool) {
	var value any
	_ = json.Unmarshal(raw, &value)
	switch s := value.(type) {
	case string:
		return s, true
	case float64, bool:
		return string(raw), true
	}
	return "", false
}

// table adds the entries of a table to those that are there.
func (r *reader) table(key string, to map[string]string) {
	v, ok := r.get(key)
	if !ok {
		return
	}
	var table map[string]json.RawMessage
	if json.Unmarshal([]byte(v), &table) != nil {
		r.refuse(key, v, "it must be a table: pulumi config set --path %s.NAME VALUE", key)
		return
	}
	for name, raw := range table {
		if text, ok := scalar(raw); ok {
			to[name] = text
		} else {
			r.refuse(key+"."+name, string(raw), "it must be a string")
		}
	}
}

// unknown refuses the keys that nothing was read from: a misspelt key would silently leave the default. The SDK has no
// list of keys but the one that the CLI hands to the program.
func (r *reader) unknown() {
	text := os.Getenv(pulumi.EnvConfig)
	if text == "" {
		return
	}
	var all map[string]string
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		r.errs = append(r.errs, fmt.Errorf("read %s: %w", pulumi.EnvConfig, err))
		return
	}
	for _, full := range slices.Sorted(maps.Keys(all)) {
		key, ours := strings.CutPrefix(full, r.prefix)
		if !ours || slices.Contains(r.keys, key) {
			continue
		}
		hint := "docs/AWS.md has the table of the keys"
		if near := generator.Nearest(key, r.keys); near != "" {
			hint = "did you mean " + near + "?"
		}
		r.refuse(key, all[full], "but there is no such key; %s", hint)
	}
}
