package cloudtest

import (
	"bytes"
	"encoding/json"
	"path"
	"strings"
)

// policy is an IAM policy document, with the parts that policies of this project
// have. Anything else in one is an error, so that a typing mistake is not taken
// for an empty statement.
type policy struct {
	Version   string
	ID        string `json:"Id,omitempty"`
	Statement []statement
}

type statement struct {
	Sid       string `json:",omitempty"`
	Effect    string
	Principal any                       `json:",omitempty"`
	Action    oneOrMore                 `json:",omitempty"`
	Resource  oneOrMore                 `json:",omitempty"`
	Condition map[string]map[string]any `json:",omitempty"`
}

// oneOrMore is a text or a list of texts.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(o))
}

func parsePolicy(text string) (policy, error) {
	var p policy
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	return p, d.Decode(&p)
}

// allows reports whether the policies allow an action on a resource.
// context has the condition keys of the request.
func allows(policies []policy, action, resource string, context map[string]string) bool {
	allowed := false
	for _, p := range policies {
		for _, s := range p.Statement {
			if !matchesAny(s.Action, action, true) || !matchesAny(s.Resource, resource, false) || !s.holds(context) {
				continue
			}
			if s.Effect == "Deny" {
				return false
			}
			allowed = true
		}
	}
	return allowed
}

// holds reports whether the conditions are met. One with an operator that is
// not known here is not.
func (s statement) holds(context map[string]string) bool {
	for operator, keys := range s.Condition {
		for key, want := range keys {
			var patterns oneOrMore
			if text, err := json.Marshal(want); err != nil || json.Unmarshal(text, &patterns) != nil {
				return false
			}
			got, ok := context[key]
			switch operator {
			case "StringLike", "StringEquals", "ArnLike", "ArnEquals":
				if !ok || !matchesAny(patterns, got, false) {
					return false
				}
			default:
				return false
			}
		}
	}
	return true
}

func matchesAny(patterns []string, s string, ignoreCase bool) bool {
	for _, p := range patterns {
		q := s
		if ignoreCase {
			p, q = strings.ToLower(p), strings.ToLower(s)
		}
		// IAM's * crosses slashes, which path.Match's does not.
		p, q = strings.ReplaceAll(p, "/", "\x00"), strings.ReplaceAll(q, "/", "\x00")
		p = strings.NewReplacer(`\`, `\\`, `[`, `\[`).Replace(p)
		if ok, err := path.Match(p, q); ok && err == nil {
			return true
		}
	}
	return false
}
