package infra

import (
	"encoding/json"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/rights"
)

// policy makes a document of ARNs that are known when their resources exist.
func policy(statements func(arns []string) []rights.Statement, arns ...pulumi.StringInput) pulumi.StringOutput {
	return pulumi.StringArray(arns).ToStringArrayOutput().ApplyT(func(known []string) (string, error) {
		return marshal(rights.Document(statements(known)...))
	}).(pulumi.StringOutput)
}

// tlsOnly is the policy of a bucket or queue that refuses everybody who does not
// come through TLS, and grants nothing. Below names what is in the resource.
func tlsOnly(service, below string, arn pulumi.StringInput) pulumi.StringOutput {
	return policy(func(arns []string) []rights.Statement {
		resources := arns
		if below != "" {
			resources = append(resources, arns[0]+below)
		}
		return []rights.Statement{{
			Sid: "TLSOnly", Effect: rights.Deny, Principal: map[string]string{"AWS": "*"}, Action: []string{service + ":*"},
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
