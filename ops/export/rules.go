package export

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
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

// defaultSplit is the one of an export without --split, as loaders call it.
const defaultSplit = "train"

// Splits says which split a sample is in. That depends on its fingerprint or its generator
// alone: the same puzzle is always in the same split, whatever else is exported.
type Splits struct {
	names      []string
	until      []float64       // upper bounds of the splits in [0, 1], if they are fractions
	generators map[string]int  // place of the split, if they are lists of generators; "*" are all others
	seen       map[[8]byte]int // split of each fingerprint, if they are lists of generators
}

var splitPattern = regexp.MustCompile(`^[A-Za-z0-9_]+$`) // the hub's rule is \w+(\.\w+)*

// ParseSplits reads a rule: train=0.9,test=0.1 by fingerprint, or train=*,test=maze+chess
// by generator. Without one everything is in the split train.
func ParseSplits(rule string) (*Splits, error) {
	s := &Splits{}
	if rule == "" {
		s.names, s.until = []string{defaultSplit}, []float64{1}
		return s, nil
	}
	total := 0.0
	for place, part := range strings.Split(rule, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		switch {
		case !ok || value == "":
			return nil, fmt.Errorf("%q must be NAME=FRACTION, NAME=GENERATOR+GENERATOR or NAME=*", part)
		case !splitPattern.MatchString(name):
			return nil, fmt.Errorf("the name %q may hold only letters, digits and '_'", name)
		case slices.Contains(s.names, name):
			return nil, fmt.Errorf("the split %s is there twice", name)
		}
		s.names = append(s.names, name)
		fraction, err := strconv.ParseFloat(value, 64)
		if err == nil && (!(fraction > 0) || fraction > 1) {
			return nil, fmt.Errorf("the fraction %s of %s must be above 0 and at most 1", value, name)
		}
		if err == nil {
			total += fraction
			s.until = append(s.until, total)
			continue
		}
		if s.generators == nil {
			s.generators, s.seen = map[string]int{}, map[[8]byte]int{}
		}
		for _, generator := range strings.Split(value, "+") {
			if _, twice := s.generators[generator]; twice {
				return nil, fmt.Errorf("%q is in two splits", generator)
			}
			s.generators[generator] = place
		}
	}
	if s.generators != nil && s.until != nil {
		return nil, fmt.Errorf("%q has fractions and generators: it must be one or the other", rule)
	}
	if s.until != nil && math.Abs(total-1) > 1e-6 {
		return nil, fmt.Errorf("the fractions of %q are %g in all, not 1", rule, total)
	}
	return s, nil
}

// Names are the splits in the order of the rule.
func (s *Splits) Names() []string { return s.names }

// checkGenerators refuses generators that are in no split, and splits of those that are not exported.
func (s *Splits) checkGenerators(names []string) error {
	for _, name := range names {
		if s.generators != nil && s.placeOf(name) < 0 {
			return fmt.Errorf("--split has no split for %s: NAME=* is the one for all others", name)
		}
	}
	for _, name := range sortedKeys(s.generators) {
		if name != "*" && !slices.Contains(names, name) {
			return fmt.Errorf("--split names %s, which is not exported", name)
		}
	}
	return nil
}

func (s *Splits) of(generator, fingerprint string) string { return s.At(generator, Place(fingerprint)) }

// Place is what fractions of splits are compared with: the first 53 bits of SHA-256("split " + fingerprint), as a
// number in [0, 1).
func Place(fingerprint string) float64 {
	hash := sha256.Sum256([]byte("split " + fingerprint))
	return float64(binary.BigEndian.Uint64(hash[:8])>>11) / (1 << 53)
}

// At returns the split of a sample by its generator and its Place, or "" if it is in none.
func (s *Splits) At(generator string, place float64) string {
	if s.generators != nil {
		if at := s.placeOf(generator); at >= 0 {
			return s.names[at]
		}
		return ""
	}
	for at, until := range s.until {
		if place < until {
			return s.names[at]
		}
	}
	return s.names[len(s.names)-1] // the fractions are a little less than 1
}

// placeOf returns the place of a generator's split, or -1.
func (s *Splits) placeOf(generator string) int {
	for _, name := range []string{generator, "*"} {
		if place, ok := s.generators[name]; ok {
			return place
		}
	}
	return -1
}

// check refuses a puzzle that is in another split, too. Fractions go by the puzzle.
func (s *Splits) check(generator, fingerprint string) error {
	if s.generators == nil {
		return nil
	}
	place, mark := s.placeOf(generator), markOf(fingerprint)
	if there, ok := s.seen[mark]; ok && there != place {
		return fmt.Errorf("a puzzle of %s (fingerprint %.40s) is in a generator of another split, too: "+
			"no split by generator can keep them apart", generator, fingerprint)
	}
	s.seen[mark] = place
	return nil
}

// markOf stands for a fingerprint.
func markOf(fingerprint string) [8]byte {
	hash := sha256.Sum256([]byte(fingerprint))
	return [8]byte(hash[:8])
}

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
