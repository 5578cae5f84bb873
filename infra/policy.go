package infra

import (
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/iam"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/rights"
)

// newRole registers a role that a service of AWS takes, and its policy.
func newRole(ctx *pulumi.Context, name, sid, service, description string, c *Config, child pulumi.ResourceOption,
	may func(arns []string) []rights.Statement, arns ...pulumi.StringInput) (*iam.Role, *iam.RolePolicy) {
	args := &iam.RoleArgs{Description: pulumi.String(description), Tags: pulumi.ToStringMap(c.Tags),
		AssumeRolePolicy: pulumi.String(must(marshal(rights.Document(rights.Statement{Sid: sid, Effect: rights.Allow,
			Principal: map[string]string{"Service": service}, Action: []string{"sts:AssumeRole"}}))))}
	if c.PermissionsBoundary != "" {
		args.PermissionsBoundary = pulumi.String(c.PermissionsBoundary)
	}
	role := must(iam.NewRole(ctx, name, args, child))
	return role, must(iam.NewRolePolicy(ctx, name,
		&iam.RolePolicyArgs{Role: role.Name, Policy: policy(may, arns...)}, child))
}

// work is what a worker may do, with the ARNs of its bucket, queue, DLQ and log group.
func work(arns []string) []rights.Statement { return rights.Worker(arns[0], arns[1], arns[2], arns[3]) }

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
