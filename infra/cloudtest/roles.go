package cloudtest

import (
	"context"
	"errors"
	"net/url"
	"reflect"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	pulumiiam "github.com/pulumi/pulumi-aws/sdk/v6/go/aws/iam"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

func roleTypes() map[tokens.Type]resourceType {
	return map[tokens.Type]resourceType{
		"aws:iam/role:Role": {
			schema: schema{
				args: argsOf[pulumiiam.RoleArgs](), state: reflect.TypeFor[pulumiiam.Role](),
				required: []string{"assumeRolePolicy"},
				rules: map[string]rule{
					"name": matches(`[\w+=,.@-]+`, 64), "assumeRolePolicy": isPolicy, "maxSessionDuration": between(3600, 43200),
					"path": matches(`/|/.+/`, 512), "permissionsBoundary": matches(`arn:aws:iam::(aws|\d{12}):policy/.+`, 2048), "description": matches(`.*`, 1000),
				},
				together: func(in props) error {
					if in.has("inlinePolicies") || in.has("managedPolicyArns") {
						return errors.New("cloudtest knows the policies of a role as resources of their own only")
					}
					return nil
				},
			},
			name: "name", nameMax: 64, fixed: []string{"name", "path"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				if err := boundaryCanBe(ctx, c, in); err != nil {
					return "", err
				}
				var tags []types.Tag
				for key, v := range in.textMap("tags") {
					tags = append(tags, types.Tag{Key: aws.String(key), Value: aws.String(v)})
				}
				_, err := c.iam.CreateRole(ctx, &iam.CreateRoleInput{
					RoleName: in.textPtr("name"), AssumeRolePolicyDocument: aws.String(jsonText(in.get("assumeRolePolicy"))),
					Description: in.textPtr("description"), MaxSessionDuration: in.numberPtr("maxSessionDuration"),
					Path: in.textPtr("path"), PermissionsBoundary: in.textPtr("permissionsBoundary"), Tags: tags,
				})
				return in.text("name"), err
			},
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				out, err := c.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &id})
				if err != nil {
					return props{}, iamGone(err)
				}
				document, err := url.QueryUnescape(aws.ToString(out.Role.AssumeRolePolicyDocument))
				if err != nil {
					return props{}, err
				}
				values := map[string]any{"arn": *out.Role.Arn, "name": id, "uniqueId": aws.ToString(out.Role.RoleId),
					"assumeRolePolicy": document}
				if d := aws.ToString(out.Role.Description); d != "" {
					values["description"] = d
				}
				if b := out.Role.PermissionsBoundary; b != nil {
					values["permissionsBoundary"] = aws.ToString(b.PermissionsBoundaryArn)
				}
				if len(out.Role.Tags) > 0 {
					tags := map[string]any{}
					for _, t := range out.Role.Tags {
						tags[*t.Key] = *t.Value
					}
					values["tags"] = tags
				}
				return outputs(values), nil
			},
			update: func(ctx context.Context, c *Cloud, id string, old, in props) error {
				if err := putBoundary(ctx, c, id, old, in); err != nil {
					return err
				}
				if _, err := c.iam.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: &id,
					PolicyDocument: aws.String(jsonText(in.get("assumeRolePolicy")))}); err != nil {
					return err
				}
				if _, err := c.iam.UpdateRole(ctx,
					&iam.UpdateRoleInput{RoleName: &id, Description: aws.String(in.text("description")),
						MaxSessionDuration: in.numberPtr("maxSessionDuration")}); err != nil {
					return err
				}
				if gone := goneTags(old, in); len(gone) > 0 {
					if _, err := c.iam.UntagRole(ctx, &iam.UntagRoleInput{RoleName: &id, TagKeys: gone}); err != nil {
						return err
					}
				}
				var set []types.Tag
				for key, v := range in.textMap("tags") {
					set = append(set, types.Tag{Key: aws.String(key), Value: aws.String(v)})
				}
				if len(set) == 0 {
					return nil
				}
				_, err := c.iam.TagRole(ctx, &iam.TagRoleInput{RoleName: &id, Tags: set})
				return err
			},
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				_, err := c.iam.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: &id})
				return iamGone(err)
			},
		},
		"aws:iam/rolePolicy:RolePolicy": {
			schema: schema{
				args: argsOf[pulumiiam.RolePolicyArgs](), state: reflect.TypeFor[pulumiiam.RolePolicy](),
				required: []string{"policy", "role"},
				rules: map[string]rule{"name": matches(`[\w+=,.@-]+`, 128), "policy": isPolicy,
					"role": matches(`[\w+=,.@-]+`, 64)},
			},
			name: "name", nameMax: 128, fixed: []string{"name", "role"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				return in.text("role") + ":" + in.text("name"), putRolePolicy(ctx, c, in)
			},
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				role, name, _ := strings.Cut(id, ":")
				text, err := rolePolicyText(ctx, c, role, name)
				if err != nil {
					return props{}, err
				}
				return outputs(map[string]any{"role": role, "name": name, "policy": text}), nil
			},
			update: func(ctx context.Context, c *Cloud, _ string, _, in props) error { return putRolePolicy(ctx, c, in) },
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				role, name, _ := strings.Cut(id, ":")
				_, err := c.iam.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: &role, PolicyName: &name})
				return iamGone(err)
			},
		},
	}
}

// boundaryCanBe makes a check that IAM makes and moto does not: the policy is there.
func boundaryCanBe(ctx context.Context, c *Cloud, in props) error {
	if !in.has("permissionsBoundary") {
		return nil
	}
	_, err := c.iam.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: in.textPtr("permissionsBoundary")})
	return err
}

func putBoundary(ctx context.Context, c *Cloud, id string, old, in props) error {
	if old.text("permissionsBoundary") == in.text("permissionsBoundary") {
		return nil
	}
	if !in.has("permissionsBoundary") {
		_, err := c.iam.DeleteRolePermissionsBoundary(ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: &id})
		return err
	}
	if err := boundaryCanBe(ctx, c, in); err != nil {
		return err
	}
	_, err := c.iam.PutRolePermissionsBoundary(ctx, &iam.PutRolePermissionsBoundaryInput{RoleName: &id,
		PermissionsBoundary: in.textPtr("permissionsBoundary")})
	return err
}

func putRolePolicy(ctx context.Context, c *Cloud, in props) error {
	_, err := c.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: aws.String(in.text("role")),
		PolicyName: aws.String(in.text("name")), PolicyDocument: aws.String(jsonText(in.get("policy")))})
	return err
}

func rolePolicyText(ctx context.Context, c *Cloud, role, name string) (string, error) {
	out, err := c.iam.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &role, PolicyName: &name})
	if err != nil {
		return "", iamGone(err)
	}
	return url.QueryUnescape(aws.ToString(out.PolicyDocument))
}

// rolePolicies are all policies that a role has now.
func rolePolicies(ctx context.Context, c *Cloud, roleARN string) ([]policy, error) {
	role := roleARN[strings.LastIndex(roleARN, "/")+1:]
	list, err := c.iam.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: &role})
	if err != nil {
		return nil, err
	}
	var all []policy
	for _, name := range list.PolicyNames {
		text, err := rolePolicyText(ctx, c, role, name)
		if err != nil {
			return nil, err
		}
		p, err := parsePolicy(text)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func iamGone(err error) error {
	if errors.As(err, new(*types.NoSuchEntityException)) {
		return errGone
	}
	return err
}
