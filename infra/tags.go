package infra

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Keys of the tags that every resource has.
const (
	tagProject = "project"
	tagStack   = "stack"
)

// Tag is a tag of a resource.
type Tag struct{ Key, Value string }

// awsDefaultTags is the provider's own key of tags for all resources.
const awsDefaultTags = "aws:defaultTags"

// readTags merges the tags of every resource: project and stack, those of the
// provider's aws:defaultTags, and the stack's own, which win. IAM takes keys that differ
// in case only for one key and refuses the second: one of them is left.
func (c *Config) readTags(r *reader) {
	var provider struct{ Tags map[string]json.RawMessage }
	if v, ok := r.ctx.GetConfig(awsDefaultTags); ok {
		_ = json.Unmarshal([]byte(v), &provider) // the provider itself refuses what it cannot read
	}
	own := map[string]string{}
	r.table("tags", own)
	given := slices.Concat(slices.Sorted(maps.Keys(own)), slices.Sorted(maps.Keys(provider.Tags)))
	for key, value := range map[string]string{tagProject: r.ctx.Project(), tagStack: c.Stack} {
		if _, ok := likeKey(given, key); !ok {
			c.Tags[key] = value
		}
	}
	for i, key := range given[:len(own)] {
		if twin, ok := likeKey(given[:i], key); ok {
			r.refuse("tags."+key, own[key], "but tags.%s differs from it in case only, which AWS takes for one key: remove one",
				twin)
		}
		if twin, ok := likeKey(given[len(own):], key); ok {
			c.Tags[twin] = own[key]
		} else {
			c.Tags[key] = own[key]
		}
	}
	c.StackTag = Tag{tagStack, c.Stack}
	if key, ok := likeKey(given, tagStack); ok {
		value, mine := c.Tags[key]
		if !mine {
			value, _ = scalar(provider.Tags[key])
		}
		c.StackTag = Tag{key, value}
	}
}

// likeKey finds a key in a list, whatever its case.
func likeKey(list []string, key string) (string, bool) {
	i := slices.IndexFunc(list, func(k string) bool { return strings.EqualFold(k, key) })
	if i < 0 {
		return "", false
	}
	return list[i], true
}
