package infra

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/s3"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
)

// Storage is the bucket: private, encrypted, reached through TLS only.
type Storage struct {
	pulumi.ResourceState

	BucketName pulumi.StringOutput
	BucketARN  pulumi.StringOutput
}

// abortDays is when the parts of an upload whose worker was killed are deleted:
// the least S3 knows, and longer than any invocation.
const abortDays = 1

// emptyBucketTime is what deleting a bucket may take: first its objects are deleted, about three million an hour.
const emptyBucketTime = "24h"

// checkAdoption refuses to adopt a bucket for a stack that has another. Pulumi would replace the one
// with the other: the samples would be out of the stack's reach, or be deleted where retainData was false.
func checkAdoption(ctx *pulumi.Context, c *Config) error {
	if c.AdoptBucket == "" {
		return nil
	}
	var state struct {
		Outputs map[string]any `pulumi:"outputs"` // of the last update
	}
	args := struct {
		Stack string `pulumi:"name"`
	}{ctx.Organization() + "/" + ctx.Project() + "/" + ctx.Stack()}
	if err := ctx.Invoke("pulumi:pulumi:readStackOutputs", &args, &state); err != nil {
		return fmt.Errorf("which bucket the stack has: %w", err)
	}
	if actual, has := state.Outputs[stack.OutBucketName].(string); has && actual != c.AdoptBucket {
		return fmt.Errorf("%s:adoptBucket is %q, but the stack has the bucket %q and keeps it: %s", ctx.Project(),
			c.AdoptBucket, actual, "pulumi config rm adoptBucket, or make another stack for that bucket (pulumi stack init)")
	}
	return nil
}

// NewStorage registers the bucket and its settings.
func NewStorage(ctx *pulumi.Context, name string, c *Config, opts ...pulumi.ResourceOption) (_ *Storage, err error) {
	defer caught(&err)
	s := &Storage{}
	parent := register(ctx, "Storage", name, s, opts)
	if err := checkAdoption(ctx, c); err != nil {
		return nil, err
	}
	child := []pulumi.ResourceOption{parent, pulumi.RetainOnDelete(c.RetainData)}

	args := &s3.BucketV2Args{Tags: pulumi.ToStringMap(c.Tags)}
	if !c.RetainData {
		args.ForceDestroy = pulumi.Bool(true)
	}
	given := cmp.Or(c.AdoptBucket, c.BucketName)
	if given != "" {
		args.Bucket = pulumi.String(given)
	}
	options := append(slices.Clone(child), pulumi.Timeouts(&pulumi.CustomTimeouts{Delete: emptyBucketTime}))
	if c.AdoptBucket == "" {
		// Another name would mean another bucket, without the samples. It is refused below.
		options = append(options, pulumi.IgnoreChanges([]string{"bucket"}))
	} else {
		options = append(options, pulumi.Import(pulumi.ID(c.AdoptBucket)),
			pulumi.IgnoreChanges([]string{"tags", "tagsAll"})) // an import changes nothing
	}
	bucket := must(s3.NewBucketV2(ctx, name, args, options...))
	s.BucketARN = bucket.Arn
	s.BucketName = bucket.Bucket.ApplyT(func(actual string) (string, error) {
		if given == "" || given == actual {
			return actual, nil
		}
		return "", fmt.Errorf("%s:bucketName is %q, but the stack has the bucket %q and keeps it: %s", ctx.Project(), given,
			actual, "set it back, or make another stack for another bucket (pulumi stack init)")
	}).(pulumi.StringOutput)

	access := must(s3.NewBucketPublicAccessBlock(ctx, name+"-private", &s3.BucketPublicAccessBlockArgs{
		Bucket:          s.BucketName,
		BlockPublicAcls: pulumi.Bool(true), BlockPublicPolicy: pulumi.Bool(true),
		IgnorePublicAcls: pulumi.Bool(true), RestrictPublicBuckets: pulumi.Bool(true),
	}, child...))
	owner := must(s3.NewBucketOwnershipControls(ctx, name+"-owner", &s3.BucketOwnershipControlsArgs{
		Bucket: s.BucketName,
		Rule:   &s3.BucketOwnershipControlsRuleArgs{ObjectOwnership: pulumi.String("BucketOwnerEnforced")},
	}, append(child, pulumi.DependsOn([]pulumi.Resource{access}))...))
	// S3 refuses changes of one bucket's access that come at the same time, so they wait for each other.
	must(s3.NewBucketPolicy(ctx, name+"-tls", &s3.BucketPolicyArgs{
		Bucket: s.BucketName, Policy: tlsOnly("s3", "/*", bucket.Arn),
	}, append(child, pulumi.DependsOn([]pulumi.Resource{access, owner}))...))
	aes := s3.BucketServerSideEncryptionConfigurationV2RuleApplyServerSideEncryptionByDefaultArgs{
		SseAlgorithm: pulumi.String("AES256")}
	must(s3.NewBucketServerSideEncryptionConfigurationV2(ctx, name+"-encryption",
		&s3.BucketServerSideEncryptionConfigurationV2Args{Bucket: s.BucketName,
			Rules: s3.BucketServerSideEncryptionConfigurationV2RuleArray{
				&s3.BucketServerSideEncryptionConfigurationV2RuleArgs{ApplyServerSideEncryptionByDefault: aes}},
		}, child...))
	must(s3.NewBucketLifecycleConfigurationV2(ctx, name+"-lifecycle", &s3.BucketLifecycleConfigurationV2Args{
		Bucket: s.BucketName,
		Rules: s3.BucketLifecycleConfigurationV2RuleArray{&s3.BucketLifecycleConfigurationV2RuleArgs{
			Id: pulumi.String("abort-uploads"), Status: pulumi.String("Enabled"),
			Filter: &s3.BucketLifecycleConfigurationV2RuleFilterArgs{Prefix: pulumi.String("")},
			AbortIncompleteMultipartUpload: &s3.BucketLifecycleConfigurationV2RuleAbortIncompleteMultipartUploadArgs{
				DaysAfterInitiation: pulumi.Int(abortDays)},
		}},
	}, child...))
	return s, ctx.RegisterResourceOutputs(s, pulumi.Map{"bucketName": s.BucketName, "bucketArn": s.BucketARN})
}
