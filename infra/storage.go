package infra

import (
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/s3"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
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

// NewStorage registers the bucket and its settings.
func NewStorage(ctx *pulumi.Context, name string, c *Config, opts ...pulumi.ResourceOption) (*Storage, error) {
	s := &Storage{}
	if err := ctx.RegisterComponentResource("vm-dataset:infra:Storage", name, s, opts...); err != nil {
		return nil, err
	}
	child := []pulumi.ResourceOption{pulumi.Parent(s), pulumi.RetainOnDelete(c.RetainData)}

	args := &s3.BucketV2Args{ForceDestroy: pulumi.Bool(!c.RetainData), Tags: pulumi.ToStringMap(c.Tags)}
	if c.BucketName != "" {
		args.Bucket = pulumi.String(c.BucketName)
	}
	bucket, err := s3.NewBucketV2(ctx, name, args, child...)
	if err != nil {
		return nil, err
	}
	s.BucketName, s.BucketARN = bucket.Bucket, bucket.Arn

	access, err := s3.NewBucketPublicAccessBlock(ctx, name+"-private", &s3.BucketPublicAccessBlockArgs{
		Bucket:          bucket.Bucket,
		BlockPublicAcls: pulumi.Bool(true), BlockPublicPolicy: pulumi.Bool(true),
		IgnorePublicAcls: pulumi.Bool(true), RestrictPublicBuckets: pulumi.Bool(true),
	}, child...)
	if err != nil {
		return nil, err
	}
	owner, err := s3.NewBucketOwnershipControls(ctx, name+"-owner", &s3.BucketOwnershipControlsArgs{
		Bucket: bucket.Bucket,
		Rule:   &s3.BucketOwnershipControlsRuleArgs{ObjectOwnership: pulumi.String("BucketOwnerEnforced")},
	}, append(child, pulumi.DependsOn([]pulumi.Resource{access}))...)
	if err != nil {
		return nil, err
	}
	// S3 refuses changes of one bucket's access that come at the same time, so
	// they wait for each other.
	_, err = s3.NewBucketPolicy(ctx, name+"-tls", &s3.BucketPolicyArgs{
		Bucket: bucket.Bucket, Policy: tlsOnly("s3", "/*", bucket.Arn),
	}, append(child, pulumi.DependsOn([]pulumi.Resource{access, owner}))...)
	if err != nil {
		return nil, err
	}
	_, err = s3.NewBucketServerSideEncryptionConfigurationV2(ctx, name+"-encryption",
		&s3.BucketServerSideEncryptionConfigurationV2Args{
			Bucket: bucket.Bucket,
			Rules: s3.BucketServerSideEncryptionConfigurationV2RuleArray{&s3.BucketServerSideEncryptionConfigurationV2RuleArgs{
				ApplyServerSideEncryptionByDefault: &s3.BucketServerSideEncryptionConfigurationV2RuleApplyServerSideEncryptionByDefaultArgs{
					SseAlgorithm: pulumi.String("AES256"),
				},
			}},
		}, child...)
	if err != nil {
		return nil, err
	}
	_, err = s3.NewBucketLifecycleConfigurationV2(ctx, name+"-lifecycle", &s3.BucketLifecycleConfigurationV2Args{
		Bucket: bucket.Bucket,
		Rules: s3.BucketLifecycleConfigurationV2RuleArray{
			&s3.BucketLifecycleConfigurationV2RuleArgs{
				Id: pulumi.String("abort-uploads"), Status: pulumi.String("Enabled"),
				Filter: &s3.BucketLifecycleConfigurationV2RuleFilterArgs{Prefix: pulumi.String("")},
				AbortIncompleteMultipartUpload: &s3.BucketLifecycleConfigurationV2RuleAbortIncompleteMultipartUploadArgs{
					DaysAfterInitiation: pulumi.Int(abortDays),
				},
			},
		},
	}, child...)
	if err != nil {
		return nil, err
	}
	return s, ctx.RegisterResourceOutputs(s, pulumi.Map{"bucketName": s.BucketName, "bucketArn": s.BucketARN})
}
