package cloudtest

import (
	"fmt"
	"reflect"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

// props are the inputs of a resource, or a part of them, as plain Go values.
// Asking for a name that the SDK's struct does not have is a bug and panics.
type props struct {
	t      reflect.Type // the struct they belong to; nil knows no names
	values map[string]any
}

func newProps(t reflect.Type, m resource.PropertyMap) props {
	return props{t, m.Mappable()}
}

// outputs are what a read function returns.
func outputs(values map[string]any) props { return props{nil, values} }

func (p props) get(name string) any {
	if p.t != nil {
		if _, ok := fields(p.t)[name]; !ok {
			panic(fmt.Sprintf("cloudtest itself is wrong: %s has no input %s", p.t, name))
		}
	}
	return p.values[name]
}

func (p props) has(name string) bool { return p.get(name) != nil }

func (p props) text(name string) string {
	s, _ := p.get(name).(string)
	return s
}

// textPtr is nil for what is not set.
func (p props) textPtr(name string) *string {
	if !p.has(name) {
		return nil
	}
	return aws.String(p.text(name))
}

func (p props) number(name string) int32 {
	n, _ := p.get(name).(float64)
	return int32(n)
}

// numberPtr is nil for what is not set.
func (p props) numberPtr(name string) *int32 {
	if !p.has(name) {
		return nil
	}
	return aws.Int32(p.number(name))
}

func (p props) flag(name string) bool {
	b, _ := p.get(name).(bool)
	return b
}

func (p props) texts(name string) []string {
	list, _ := p.get(name).([]any)
	texts := make([]string, 0, len(list))
	for _, v := range list {
		texts = append(texts, fmt.Sprint(v))
	}
	return texts
}

func (p props) textMap(name string) map[string]string {
	o, _ := p.get(name).(map[string]any)
	m := map[string]string{}
	for key, v := range o {
		m[key] = fmt.Sprint(v)
	}
	return m
}

// object is a nested struct; one that is not set is empty.
func (p props) object(name string) props {
	o, _ := p.get(name).(map[string]any)
	return props{elem(p.t, name), o}
}

func (p props) objects(name string) []props {
	list, _ := p.get(name).([]any)
	var all []props
	for _, v := range list {
		o, _ := v.(map[string]any)
		all = append(all, props{elem(p.t, name), o})
	}
	return all
}

// elem is the struct that a field points to or is a list of.
func elem(t reflect.Type, name string) reflect.Type {
	if t == nil {
		return nil
	}
	ft := fields(t)[name]
	for ft.Kind() == reflect.Pointer || ft.Kind() == reflect.Slice {
		ft = ft.Elem()
	}
	return ft
}

// goneTags are the tags that a resource had and is to have no longer.
func goneTags(old, in props) []string {
	tags := in.textMap("tags")
	var gone []string
	for key := range old.textMap("tags") {
		if _, ok := tags[key]; !ok {
			gone = append(gone, key)
		}
	}
	return gone
}
