package infra

import (
	"encoding/json"

	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/iam"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/rights"
)

// failure is an error on its way to the constructor of a component.
type failure struct{ error }

// must returns what was made, or ends the constructor that calls it with the error.
func must[T any](made T, err error) T {
	if err != nil {
		panic(failure{err})
	}
	return made
}

// caught makes the error that ended a constructor its result: each defers it.
func caught(err *error) {
	switch p := recover().(type) {
	case nil:
	case failure:
		*err = p.error
	default:
		panic(p)
	}
}

// register registers a component of a kind and returns the option that its resources have.
func register(ctx *pulumi.Context, kind, name string, c pulumi.ComponentResource,
	opts []pulumi.ResourceOption) pulumi.ResourceOrInvokeOption {
	if err := ctx.RegisterComponentResource("vm-dataset:infra:"+kind, name, c, opts...); err != nil {
		panic(failure{err})
	}
	return pulumi.Parent(c)
}

// newRole registers a role that a service of AWS takes, and its policy.
func newRole(ctx *pulumi.Context, name, sid, service, description string, c *Config, child pulumi.ResourceOption,
	may func(arns []string) []rights.Statement, arns ...pulumi.StringInput) (*iam.Role, *iam.RolePolicy) {
	args := &iam.RoleArgs{Description: pulumi.String(description), Tags: pulumi.ToStringMap(c.Tags),
		AssumeRolePolicy: pulumi.String(marshal(rights.Document(rights.Statement{Sid: sid, Effect: rights.Allow,
			Principal: map[string]string{"Service": service}, Action: []string{"sts:AssumeRole"}})))}
	if c.PermissionsBoundary != "" {
		args.PermissionsBoundary = pulumi.String(c.PermissionsBoundary)
	}
	role := must(iam.NewRole(ctx, name, args, child))
	return role, must(iam.NewRolePolicy(ctx, name, &iam.RolePolicyArgs{Role: role.Name, Policy: policy(may, arns...)}, child))
}

// work is what a worker may do, with the ARNs of its bucket, queue, DLQ and log group.
func work(arns []string) []rights.Statement { return rights.Worker(arns[0], arns[1], arns[2], arns[3]) }

// policy makes a document of ARNs that are known when their resources exist.
func policy(statements func(arns []string) []rights.Statement, arns ...pulumi.StringInput) pulumi.StringOutput {
	return pulumi.StringArray(arns).ToStringArrayOutput().ApplyT(func(known []string) string {
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
func marshal(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return string(text)
}
