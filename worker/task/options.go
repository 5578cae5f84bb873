package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Options are arguments of a generator's command line beside the worker's own: values by name, without dashes. A
// dataset pins them for each generator. They are never changed in place.
type Options map[string]string

// Limits of options: far above what any generator has, so that a task fits into a message.
const (
	maxOptions     = 32
	maxOptionValue = 200 // bytes
)

var optionPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`)

// workersOwn are the arguments that a worker gives, and those that would change what it needs.
var workersOwn = []string{"num-samples", "seed", "start-index", "output", "output-dir", "no-video", "no-videos", "help"}

// ReservedOption reports whether an argument of a generator is no option.
func ReservedOption(name string) bool {
	return slices.Contains(workersOwn, strings.ReplaceAll(name, "_", "-"))
}

// ParseOption reads NAME=VALUE. The error says what is wrong with it.
func ParseOption(text string) (Options, error) {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return nil, fmt.Errorf("%.60q must be NAME=VALUE, as in difficulty=3", text)
	}
	o := Options{name: value}
	return o, o.Check()
}

// Check reports what is wrong with the options, or nil. Values reach the generator as they
// are: none may look like another argument, or name a file beyond the generator's folder.
func (o Options) Check() error {
	if len(o) > maxOptions {
		return fmt.Errorf("there are %d options, at most %d are allowed", len(o), maxOptions)
	}
	for _, name := range slices.Sorted(maps.Keys(o)) {
		value := o[name]
		unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
		var wrong string
		switch {
		case len(name) > MaxNameLength || !optionPattern.MatchString(name):
			return fmt.Errorf("%.60q is no name of an option: letters, digits, '_' and '-', after a letter", name)
		case ReservedOption(name):
			return fmt.Errorf("%s is no option: the worker decides about it", name)
		case value == "":
			wrong = "is empty"
		case len(value) > maxOptionValue:
			wrong = fmt.Sprintf("has %d bytes, at most %d are allowed", len(value), maxOptionValue)
		case !utf8.ValidString(value) || strings.ContainsFunc(value, unprintable):
			wrong = "holds characters that cannot be printed"
		case value[0] == '-':
			wrong = "begins with '-', as an argument does"
		case !filepath.IsLocal(value):
			wrong = "is a path that leads out of the generator's folder"
		default:
			continue
		}
		return fmt.Errorf("the value %.60q of %s %s", value, name, wrong)
	}
	return nil
}

// With returns the options with others in addition to them, or in their place.
func (o Options) With(others Options) Options {
	if len(others) == 0 {
		return o
	}
	all := Options{}
	maps.Copy(all, o)
	maps.Copy(all, others)
	return all
}

// Args are the options as arguments, in the order of their names.
func (o Options) Args() (args []string) {
	for _, name := range slices.Sorted(maps.Keys(o)) {
		args = append(args, "--"+name, o[name])
	}
	return args
}

// String writes the options in the order of their names, as in "difficulty=3 fps=8".
func (o Options) String() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(o)) {
		value := o[name]
		if strings.ContainsAny(value, ` "`) {
			value = strconv.Quote(value)
		}
		list = append(list, name+"="+value)
	}
	return strings.Join(list, " ")
}

// Namespace is what stands for a generator with these options in the hash of a seed:
// with other options it draws from other seeds. It is the generator's name if there are none.
func (o Options) Namespace(generator string) string {
	// A newline is in no name and in no value.
	return strings.Join(append([]string{generator}, o.Args()...), "\n")
}

func readOptions(v json.RawMessage, to *Options) error {
	fields, err := object(v)
	if err != nil || len(fields) == 0 {
		return errors.New("must be an object of strings, as in {\"difficulty\": \"3\"}")
	}
	*to = Options{}
	for _, f := range fields {
		if _, twice := (*to)[f.name]; twice {
			return fmt.Errorf("has %.60q twice", f.name)
		}
		var value string
		if err := readString(f.value, &value); err != nil {
			return fmt.Errorf("has a value of %.60q that %w", f.name, err)
		}
		(*to)[f.name] = value
	}
	return nil
}
