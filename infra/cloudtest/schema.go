package cloudtest

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// schema describes valid inputs. Names and types are not retyped here:
// the Pulumi SDK's own structs carry them, in their pulumi tags.
type schema struct {
	args  reflect.Type // plain struct of the inputs
	state reflect.Type // struct of the resource: its outputs

	required []string        // lists and maps: the struct shows only required scalars
	rules    map[string]rule // by path, lists as name[]: "rules[].status"
	// together checks all inputs at once, after each alone is valid; may be nil.
	together func(in props) error
}

// knows refuses inputs that this package leaves out of what it makes.
func knows(what string, names ...string) func(in props) error {
	return func(in props) error {
		for name := range in.values {
			if !slices.Contains(names, name) {
				return fmt.Errorf("cloudtest does not know %s with %s", what, name)
			}
		}
		return nil
	}
}

// rule returns what is wrong with a known value, or "".
type rule func(v any) string

// argsOf returns the plain struct behind the inputs of a resource or function.
func argsOf[Args interface{ ElementType() reflect.Type }]() reflect.Type {
	var a Args
	return a.ElementType()
}

// fields maps the Pulumi names of a struct's fields to their types.
func fields(t reflect.Type) map[string]reflect.Type {
	found := map[string]reflect.Type{}
	if t == nil {
		return found
	}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("pulumi"), ",")
		if name != "" && len(f.Index) == 1 {
			found[name] = f.Type
		}
	}
	return found
}

// check returns everything that is wrong with the inputs. What is not known yet
// is taken to be right.
func (s *schema) check(in resource.PropertyMap) []plugin.CheckFailure {
	c := checker{rules: s.rules}
	known := in.Copy()
	delete(known, defaultsKey)
	c.object(s.args, known, "")
	for _, name := range s.required {
		if !in.HasValue(resource.PropertyKey(name)) {
			c.fail(name, "is required")
		}
	}
	if len(c.failures) == 0 && s.together != nil {
		if err := s.together(newProps(s.args, known)); err != nil {
			c.fail("", "%v", err)
		}
	}
	return c.failures
}

type checker struct {
	rules    map[string]rule
	failures []plugin.CheckFailure
}

func (c *checker) fail(path, format string, a ...any) {
	c.failures = append(c.failures, plugin.CheckFailure{Property: resource.PropertyKey(path),
		Reason: strings.TrimSpace(path + " " + fmt.Sprintf(format, a...))})
}

func (c *checker) object(t reflect.Type, o resource.PropertyMap, path string) {
	known := fields(t)
	for _, key := range o.StableKeys() {
		at := join(path, string(key))
		ft, ok := known[string(key)]
		if !ok {
			c.fail(at, "is no property of %s", t.Name())
			continue
		}
		c.value(ft, o[key], at)
	}
	for name, ft := range known {
		switch ft.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface: // optional, or in required
		default:
			if !o.HasValue(resource.PropertyKey(name)) {
				c.fail(join(path, name), "is required")
			}
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (c *checker) value(t reflect.Type, v resource.PropertyValue, path string) {
	for v.IsSecret() || v.IsOutput() {
		if v.IsSecret() {
			v = v.SecretValue().Element
		} else {
			v = v.OutputValue().Element
		}
	}
	if v.IsNull() || v.IsComputed() {
		return
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	before := len(c.failures)
	switch {
	case t == reflect.TypeFor[pulumi.Archive](), t == reflect.TypeFor[pulumi.AssetOrArchive]():
		if !v.IsArchive() && !v.IsAsset() {
			c.fail(path, "is no archive")
		}
		return
	case t.Kind() == reflect.Interface: // a policy, or a reference by URN or ARN: the rule checks it
	case t.Kind() == reflect.String && !v.IsString(),
		t.Kind() == reflect.Bool && !v.IsBool(),
		t.Kind() == reflect.Float64 && !v.IsNumber(),
		t.Kind() == reflect.Int && (!v.IsNumber() || v.NumberValue() != math.Trunc(v.NumberValue())),
		t.Kind() == reflect.Slice && !v.IsArray(),
		(t.Kind() == reflect.Map || t.Kind() == reflect.Struct) && !v.IsObject():
		c.fail(path, "is of type %s, not %s", v.TypeString(), t)
	case t.Kind() == reflect.Slice:
		for _, e := range v.ArrayValue() {
			c.value(t.Elem(), e, path+"[]")
		}
	case t.Kind() == reflect.Map:
		for key, e := range v.ObjectValue() {
			c.value(t.Elem(), e, join(path, string(key)))
		}
	case t.Kind() == reflect.Struct:
		c.object(t, v.ObjectValue(), path)
	}
	if r := c.rules[path]; r != nil && len(c.failures) == before && !v.ContainsUnknowns() {
		if problem := r(v.Mappable()); problem != "" {
			c.fail(path, "%s", problem)
		}
	}
}

// between allows numbers from low to high, both included.
func between(low, high float64) rule {
	return func(v any) string {
		if n, ok := v.(float64); !ok || n < low || n > high {
			return fmt.Sprintf("is %v; allowed is %v to %v", v, low, high)
		}
		return ""
	}
}

func oneOf[T comparable](allowed ...T) rule {
	return func(v any) string {
		if t, ok := v.(T); !ok || !slices.Contains(allowed, t) {
			return fmt.Sprintf("is %v; allowed is one of %v", v, allowed)
		}
		return ""
	}
}

// matches allows texts of at most max characters that match a pattern from
// beginning to end.
func matches(pattern string, longest int) rule {
	re := regexp.MustCompile("^(?s:" + pattern + ")$")
	return func(v any) string {
		s, ok := v.(string)
		if !ok || !re.MatchString(s) {
			return fmt.Sprintf("is %q; it must match %s", v, pattern)
		}
		if n := utf8.RuneCountInString(s); n > longest {
			return fmt.Sprintf("has %d characters; allowed are %d", n, longest)
		}
		return ""
	}
}

func arn(service string) rule {
	return matches(`arn:aws:`+service+`:[a-z0-9-]*:[0-9]*:.+`, 2048)
}

// items allows lists of a number of items, none twice.
func items(low, high int) rule {
	return func(v any) string {
		list, ok := v.([]any)
		if !ok || len(list) < low || len(list) > high {
			return fmt.Sprintf("has %d items; allowed are %d to %d", len(list), low, high)
		}
		for i, item := range list {
			if slices.ContainsFunc(list[:i], func(o any) bool { return reflect.DeepEqual(o, item) }) {
				return fmt.Sprintf("has %v twice", item)
			}
		}
		return ""
	}
}

// isJSON allows texts that are a JSON object.
func isJSON(v any) string {
	var o map[string]any
	s, ok := v.(string)
	if !ok {
		return "is no JSON text"
	}
	if err := json.Unmarshal([]byte(s), &o); err != nil {
		return "is no JSON object: " + err.Error()
	}
	return ""
}

// isPolicy allows policy documents of the current version whose statements say
// who may do what, and hold nothing else.
func isPolicy(v any) string {
	if problem := isJSON(v); problem != "" {
		return problem
	}
	p, err := parsePolicy(v.(string))
	switch {
	case err != nil:
		return "is no policy: " + err.Error()
	case p.Version != "2012-10-17":
		return fmt.Sprintf("is a policy of version %q, not 2012-10-17", p.Version)
	case len(p.Statement) == 0:
		return "is a policy without statements"
	}
	for i, s := range p.Statement {
		if s.Effect != "Allow" && s.Effect != "Deny" || len(s.Action) == 0 {
			return fmt.Sprintf("statement %d has effect %q and actions %v", i+1, s.Effect, s.Action)
		}
	}
	return ""
}
