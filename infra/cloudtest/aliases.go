package cloudtest

import (
	"context"
	"reflect"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	pulumilambda "github.com/pulumi/pulumi-aws/sdk/v6/go/aws/lambda"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

// https://docs.aws.amazon.com/lambda/latest/api/API_CreateAlias.html
func aliasTypes() map[tokens.Type]resourceType {
	return map[tokens.Type]resourceType{
		"aws:lambda/alias:Alias": {
			schema: schema{
				args: argsOf[pulumilambda.AliasArgs](), state: reflect.TypeFor[pulumilambda.Alias](),
				required: []string{"name"},
				rules: map[string]rule{"name": matches(`[A-Za-z0-9_-]+`, 128),
					"functionVersion": matches(`\$LATEST|[0-9]+`, 1024)},
			},
			fixed: []string{"name", "functionName"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				_, err := c.lambda.CreateAlias(ctx, &lambda.CreateAliasInput{FunctionName: in.textPtr("functionName"),
					Name: in.textPtr("name"), FunctionVersion: in.textPtr("functionVersion"), Description: in.textPtr("description")})
				return in.text("functionName") + "/" + in.text("name"), err
			},
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				function, name, _ := strings.Cut(id, "/")
				out, err := c.lambda.GetAlias(ctx, &lambda.GetAliasInput{FunctionName: &function, Name: &name})
				if err != nil {
					return props{}, lambdaGone(err)
				}
				return outputs(map[string]any{"name": name, "functionName": function, "arn": *out.AliasArn,
					"functionVersion": *out.FunctionVersion, "description": aws.ToString(out.Description)}), nil
			},
			update: func(ctx context.Context, c *Cloud, id string, _, in props) error {
				function, name, _ := strings.Cut(id, "/")
				_, err := c.lambda.UpdateAlias(ctx, &lambda.UpdateAliasInput{FunctionName: &function, Name: &name,
					FunctionVersion: in.textPtr("functionVersion"), Description: in.textPtr("description")})
				return err
			},
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				function, name, _ := strings.Cut(id, "/")
				_, err := c.lambda.DeleteAlias(ctx, &lambda.DeleteAliasInput{FunctionName: &function, Name: &name})
				return lambdaGone(err)
			},
		},
	}
}
