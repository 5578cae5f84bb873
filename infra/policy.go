package infra

import (
	"encoding/json"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// document is an IAM policy document.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
type document struct {
	Version   string
	Statement []statement
}

type statement struct {
	Sid       string
	Effect    string
	Principal map[string]string              `json:",omitempty"`
	Action    []string                       `json:",omitempty"`
	Resource  []string                       `json:",omitempty"`
	Condition map[string]map[string][]string `json:",omitempty"`
}

const (
	allow = "Allow"
	deny  = "Deny"
)

// policy makes a document of ARNs that are known when their resources exist.
func policy(statements func(arns []string) []statement, arns ...pulumi.StringInput) pulumi.StringOutput {
	return pulumi.StringArray(arns).ToStringArrayOutput().ApplyT(func(known []string) (string, error) {
		return marshal(document{"2012-10-17", statements(known)})
	}).(pulumi.StringOutput)
}

// tlsOnly is the policy of a bucket or queue that refuses everybody who does not
// come through TLS, and grants nothing. Below names what is in the resource.
func tlsOnly(service, below string, arn pulumi.StringInput) pulumi.StringOutput {
	return policy(func(arns []string) []statement {
		resources := arns
		if below != "" {
			resources = append(resources, arns[0]+below)
		}
		return []statement{{
			Sid: "TLSOnly", Effect: deny, Principal: map[string]string{"AWS": "*"}, Action: []string{service + ":*"},
			Resource:  resources,
			Condition: map[string]map[string][]string{"Bool": {"aws:SecureTransport": {"false"}}},
		}}
	}, arn)
}

// marshal writes a document that AWS takes as JSON.
func marshal(v any) (string, error) {
	text, err := json.Marshal(v)
	return string(text), err
}
