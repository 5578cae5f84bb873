package cloudtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	pulumiaws "github.com/pulumi/pulumi-aws/sdk/v6/go/aws"
	pulumiecr "github.com/pulumi/pulumi-aws/sdk/v6/go/aws/ecr"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/servicequotas"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

func repositoryTypes() map[tokens.Type]resourceType {
	return map[tokens.Type]resourceType{
		"aws:ecr/repository:Repository": {
			schema: schema{
				args: argsOf[pulumiecr.RepositoryArgs](), state: reflect.TypeFor[pulumiecr.Repository](),
				rules: map[string]rule{
					"name":               matches(`[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*`, 256),
					"imageTagMutability": oneOf("MUTABLE", "IMMUTABLE"), "encryptionConfigurations": items(1, 1),
					"encryptionConfigurations[].encryptionType": oneOf("AES256", "KMS"),
				},
			},
			name: "name", nameMax: 256, fixed: []string{"name", "encryptionConfigurations"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				var tags []types.Tag
				for key, v := range in.textMap("tags") {
					tags = append(tags, types.Tag{Key: aws.String(key), Value: aws.String(v)})
				}
				input := &ecr.CreateRepositoryInput{RepositoryName: in.textPtr("name"), ImageTagMutability: mutability(in),
					ImageScanningConfiguration: scanning(in), Tags: tags}
				for _, e := range in.objects("encryptionConfigurations") {
					input.EncryptionConfiguration = &types.EncryptionConfiguration{EncryptionType: types.EncryptionType(
						e.text("encryptionType")), KmsKey: e.textPtr("kmsKey")}
				}
				_, err := c.ecr.CreateRepository(ctx, input)
				return in.text("name"), err
			},
			read: func(ctx context.Context, c *Cloud, id string, in props) (props, error) {
				out, err := c.ecr.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{id}})
				if err != nil {
					return props{}, ecrGone(err)
				}
				r := out.Repositories[0]
				values := map[string]any{
					"name": id, "arn": *r.RepositoryArn, "registryId": *r.RegistryId,
					"imageTagMutability": string(r.ImageTagMutability),
					"repositoryUrl":      c.registry.address + "/" + id, // in AWS it is below dkr.ecr.REGION.amazonaws.com
				}
				if in.has("imageScanningConfiguration") {
					values["imageScanningConfiguration"] = map[string]any{"scanOnPush": r.ImageScanningConfiguration.ScanOnPush}
				}
				return outputs(values), nil
			},
			update: func(ctx context.Context, c *Cloud, id string, _, in props) error {
				if _, err := c.ecr.PutImageTagMutability(ctx, &ecr.PutImageTagMutabilityInput{RepositoryName: &id,
					ImageTagMutability: mutability(in)}); err != nil {
					return err
				}
				if _, err := c.ecr.PutImageScanningConfiguration(ctx, &ecr.PutImageScanningConfigurationInput{RepositoryName: &id,
					ImageScanningConfiguration: scanning(in)}); err != nil {
					return err
				}
				var tags []types.Tag
				for key, v := range in.textMap("tags") {
					tags = append(tags, types.Tag{Key: aws.String(key), Value: aws.String(v)})
				}
				_, err := c.ecr.TagResource(ctx,
					&ecr.TagResourceInput{ResourceArn: aws.String("arn:aws:ecr:" + c.Region + ":" + c.Account + ":repository/" + id),
						Tags: tags})
				return err
			},
			remove: func(ctx context.Context, c *Cloud, id string, in props) error {
				_, err := c.ecr.DeleteRepository(ctx, &ecr.DeleteRepositoryInput{RepositoryName: &id,
					Force: in.flag("forceDelete")})
				return ecrGone(err)
			},
		},
		"aws:ecr/repositoryPolicy:RepositoryPolicy": {
			schema: schema{
				args: argsOf[pulumiecr.RepositoryPolicyArgs](), state: reflect.TypeFor[pulumiecr.RepositoryPolicy](),
				required: []string{"policy"}, rules: map[string]rule{"policy": isPolicy},
			},
			fixed: []string{"repository"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				return in.text("repository"), putRepositoryPolicy(ctx, c, in)
			},
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				out, err := c.ecr.GetRepositoryPolicy(ctx, &ecr.GetRepositoryPolicyInput{RepositoryName: &id})
				if err != nil {
					return props{}, ecrGone(err)
				}
				return outputs(map[string]any{"repository": id, "registryId": aws.ToString(out.RegistryId),
					"policy": *out.PolicyText}), nil
			},
			update: func(ctx context.Context, c *Cloud, _ string, _, in props) error {
				return putRepositoryPolicy(ctx, c, in)
			},
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				_, err := c.ecr.DeleteRepositoryPolicy(ctx, &ecr.DeleteRepositoryPolicyInput{RepositoryName: &id})
				return ecrGone(err)
			},
		},
		"aws:ecr/lifecyclePolicy:LifecyclePolicy": {
			schema: schema{
				args: argsOf[pulumiecr.LifecyclePolicyArgs](), state: reflect.TypeFor[pulumiecr.LifecyclePolicy](),
				required: []string{"policy"}, rules: map[string]rule{"policy": isJSON},
			},
			fixed: []string{"repository"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				return in.text("repository"), putLifecyclePolicy(ctx, c, in)
			},
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				out, err := c.ecr.GetLifecyclePolicy(ctx, &ecr.GetLifecyclePolicyInput{RepositoryName: &id})
				if err != nil {
					return props{}, ecrGone(err)
				}
				return outputs(map[string]any{"repository": id, "registryId": aws.ToString(out.RegistryId),
					"policy": *out.LifecyclePolicyText}), nil
			},
			update: func(ctx context.Context, c *Cloud, _ string, _, in props) error {
				return putLifecyclePolicy(ctx, c, in)
			},
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				_, err := c.ecr.DeleteLifecyclePolicy(ctx, &ecr.DeleteLifecyclePolicyInput{RepositoryName: &id})
				return ecrGone(err)
			},
		},
	}
}

func ecrGone(err error) error {
	if errors.As(err, new(*types.RepositoryNotFoundException)) ||
		errors.As(err, new(*types.LifecyclePolicyNotFoundException)) ||
		errors.As(err, new(*types.RepositoryPolicyNotFoundException)) {
		return errGone
	}
	return err
}

func mutability(in props) types.ImageTagMutability {
	if m := in.text("imageTagMutability"); m != "" {
		return types.ImageTagMutability(m)
	}
	return types.ImageTagMutabilityMutable
}

func scanning(in props) *types.ImageScanningConfiguration {
	return &types.ImageScanningConfiguration{ScanOnPush: in.object("imageScanningConfiguration").flag("scanOnPush")}
}

func putLifecyclePolicy(ctx context.Context, c *Cloud, in props) error {
	_, err := c.ecr.PutLifecyclePolicy(ctx, &ecr.PutLifecyclePolicyInput{RepositoryName: in.textPtr("repository"),
		LifecyclePolicyText: aws.String(jsonText(in.get("policy")))})
	return err
}

func putRepositoryPolicy(ctx context.Context, c *Cloud, in props) error {
	_, err := c.ecr.SetRepositoryPolicy(ctx, &ecr.SetRepositoryPolicyInput{RepositoryName: in.textPtr("repository"),
		PolicyText: aws.String(jsonText(in.get("policy")))})
	return err
}

// invokes are what the program asks AWS for.
func invokes() map[tokens.ModuleMember]invokeType {
	return map[tokens.ModuleMember]invokeType{
		"aws:index/getCallerIdentity:getCallerIdentity": {
			args: reflect.TypeFor[pulumiaws.GetCallerIdentityArgs](),
			call: func(_ context.Context, c *Cloud, _ props) (props, error) {
				return outputs(map[string]any{"accountId": c.Account, "id": c.Account, "arn": "arn:aws:iam::" + c.Account + ":root",
					"userId": c.Account}), nil
			},
		},
		"aws:index/getRegion:getRegion": {
			args: reflect.TypeFor[pulumiaws.GetRegionArgs](),
			call: func(_ context.Context, c *Cloud, _ props) (props, error) {
				return outputs(map[string]any{"name": c.Region, "id": c.Region, "description": c.Region,
					"endpoint": "ec2." + c.Region + ".amazonaws.com"}), nil
			},
		},
		"aws:servicequotas/getServiceQuota:getServiceQuota": {
			args: reflect.TypeFor[servicequotas.LookupServiceQuotaArgs](),
			call: func(_ context.Context, c *Cloud, in props) (props, error) {
				if in.text("serviceCode") != "lambda" || in.text("quotaCode") != "L-B99A9384" {
					return props{}, fmt.Errorf("NoSuchResourceException: %s %s", in.text("serviceCode"), in.text("quotaCode"))
				}
				return outputs(map[string]any{"value": float64(c.quota.Load())}), nil
			},
		},
		"aws:ecr/getAuthorizationToken:getAuthorizationToken": {
			args: reflect.TypeFor[pulumiecr.GetAuthorizationTokenArgs](),
			call: func(_ context.Context, c *Cloud, in props) (props, error) {
				if id := in.text("registryId"); id != "" && id != c.Account {
					return props{}, fmt.Errorf("the registry %s is not that of account %s", id, c.Account)
				}
				password := c.registry.login()
				return outputs(map[string]any{
					"userName": registryUser, "password": password, "authorizationToken": basicAuth(registryUser, password),
					"proxyEndpoint": "http://" + c.registry.address,
					"registryId":    c.Account, "id": c.Account,
					"expiresAt": time.Now().Add(12 * time.Hour).UTC().Format(time.RFC3339),
				}), nil
			},
		},
	}
}
