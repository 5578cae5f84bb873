package cloudtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	pulumis3 "github.com/pulumi/pulumi-aws/sdk/v6/go/aws/s3"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

var bucketName = matches(`[a-z0-9][a-z0-9-]{1,61}[a-z0-9]`, 63)

func bucketTypes() map[tokens.Type]resourceType {
	return map[tokens.Type]resourceType{
		"aws:s3/bucketV2:BucketV2": {
			schema: schema{
				args: argsOf[pulumis3.BucketV2Args](), state: reflect.TypeFor[pulumis3.BucketV2](),
				rules: map[string]rule{"bucket": bucketName},
				together: func(in props) error {
					for name := range in.values {
						if !slices.Contains([]string{"bucket", "forceDestroy", "tags"}, name) {
							return fmt.Errorf("cloudtest does not know buckets with %s: it has resources of their own for it", name)
						}
					}
					return nil
				},
			},
			name: "bucket", nameMax: 63, fixed: []string{"bucket"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				name := in.text("bucket")
				_, err := c.s3.CreateBucket(ctx,
					&s3.CreateBucketInput{Bucket: &name,
						CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(
							c.Region)}})
				if err != nil {
					return "", err
				}
				return name, tagBucket(ctx, c, name, in)
			},
			read: func(ctx context.Context, c *Cloud, id string, in props) (props, error) {
				if _, err := c.s3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &id}); err != nil {
					return props{}, s3Gone(err)
				}
				values := map[string]any{
					"arn": "arn:aws:s3:::" + id, "bucket": id, "region": c.Region,
					"bucketDomainName": id + ".s3.amazonaws.com", "bucketRegionalDomainName": id + ".s3." + c.Region +
						".amazonaws.com",
				}
				tags, err := c.s3.GetBucketTagging(ctx, &s3.GetBucketTaggingInput{Bucket: &id})
				if err == nil && len(tags.TagSet) > 0 {
					found := map[string]any{}
					for _, t := range tags.TagSet {
						found[*t.Key] = *t.Value
					}
					values["tags"] = found
				} else if err = s3Gone(err); err != nil && !errors.Is(err, errGone) {
					return props{}, err
				}
				return outputs(values), nil
			},
			update: func(ctx context.Context, c *Cloud, id string, _, in props) error { return tagBucket(ctx, c, id, in) },
			remove: removeBucket,
		},
		"aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": bucketSetting(
			schema{args: argsOf[pulumis3.BucketPublicAccessBlockArgs](),
				state: reflect.TypeFor[pulumis3.BucketPublicAccessBlock](), rules: map[string]rule{"bucket": bucketName}},
			func(ctx context.Context, c *Cloud, bucket string, in props) error {
				_, err := c.s3.PutPublicAccessBlock(ctx, &s3.PutPublicAccessBlockInput{Bucket: &bucket,
					PublicAccessBlockConfiguration: &types.PublicAccessBlockConfiguration{
						BlockPublicAcls: aws.Bool(in.flag("blockPublicAcls")), BlockPublicPolicy: aws.Bool(in.flag("blockPublicPolicy")),
						IgnorePublicAcls:      aws.Bool(in.flag("ignorePublicAcls")),
						RestrictPublicBuckets: aws.Bool(in.flag("restrictPublicBuckets")),
					}})
				return err
			},
			func(ctx context.Context, c *Cloud, bucket string) (map[string]any, error) {
				out, err := c.s3.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: &bucket})
				if err != nil {
					return nil, err
				}
				b := out.PublicAccessBlockConfiguration
				return map[string]any{
					"blockPublicAcls": aws.ToBool(b.BlockPublicAcls), "blockPublicPolicy": aws.ToBool(b.BlockPublicPolicy),
					"ignorePublicAcls": aws.ToBool(b.IgnorePublicAcls), "restrictPublicBuckets": aws.ToBool(b.RestrictPublicBuckets),
				}, nil
			},
			func(ctx context.Context, c *Cloud, bucket string) error {
				_, err := c.s3.DeletePublicAccessBlock(ctx, &s3.DeletePublicAccessBlockInput{Bucket: &bucket})
				return err
			}),
		"aws:s3/bucketOwnershipControls:BucketOwnershipControls": bucketSetting(
			schema{
				args: argsOf[pulumis3.BucketOwnershipControlsArgs](), state: reflect.TypeFor[pulumis3.BucketOwnershipControls](),
				rules: map[string]rule{"bucket": bucketName, "rule.objectOwnership": oneOf("BucketOwnerEnforced",
					"BucketOwnerPreferred", "ObjectWriter")},
			},
			func(ctx context.Context, c *Cloud, bucket string, in props) error {
				_, err := c.s3.PutBucketOwnershipControls(ctx, &s3.PutBucketOwnershipControlsInput{Bucket: &bucket,
					OwnershipControls: &types.OwnershipControls{
						Rules: []types.OwnershipControlsRule{{ObjectOwnership: types.ObjectOwnership(
							in.object("rule").text("objectOwnership"))}},
					}})
				return err
			},
			func(ctx context.Context, c *Cloud, bucket string) (map[string]any, error) {
				out, err := c.s3.GetBucketOwnershipControls(ctx, &s3.GetBucketOwnershipControlsInput{Bucket: &bucket})
				if err != nil {
					return nil, err
				}
				return map[string]any{"rule": map[string]any{"objectOwnership": string(
					out.OwnershipControls.Rules[0].ObjectOwnership)}}, nil
			},
			func(ctx context.Context, c *Cloud, bucket string) error {
				_, err := c.s3.DeleteBucketOwnershipControls(ctx, &s3.DeleteBucketOwnershipControlsInput{Bucket: &bucket})
				return err
			}),
		"aws:s3/bucketServerSideEncryptionConfigurationV2:BucketServerSideEncryptionConfigurationV2": bucketSetting(
			schema{
				args:     argsOf[pulumis3.BucketServerSideEncryptionConfigurationV2Args](),
				state:    reflect.TypeFor[pulumis3.BucketServerSideEncryptionConfigurationV2](),
				required: []string{"rules"},
				rules: map[string]rule{
					"bucket": bucketName, "rules": items(1, 1),
					"rules[].applyServerSideEncryptionByDefault.sseAlgorithm": oneOf("AES256", "aws:kms", "aws:kms:dsse"),
				},
			}, putEncryption, readEncryption,
			func(ctx context.Context, c *Cloud, bucket string) error {
				_, err := c.s3.DeleteBucketEncryption(ctx, &s3.DeleteBucketEncryptionInput{Bucket: &bucket})
				return err
			}),
		"aws:s3/bucketLifecycleConfigurationV2:BucketLifecycleConfigurationV2": bucketSetting(
			schema{
				args:     argsOf[pulumis3.BucketLifecycleConfigurationV2Args](),
				state:    reflect.TypeFor[pulumis3.BucketLifecycleConfigurationV2](),
				required: []string{"rules"},
				rules: map[string]rule{
					"bucket": bucketName, "rules": items(1, 1000), "rules[].id": matches(`.+`, 255),
					"rules[].status":          oneOf("Enabled", "Disabled"),
					"rules[].expiration.days": between(1, 1<<31-1),
					"rules[].abortIncompleteMultipartUpload.daysAfterInitiation": between(1, 1<<31-1),
				},
				together: checkLifecycle,
			}, putLifecycle, readLifecycle,
			func(ctx context.Context, c *Cloud, bucket string) error {
				_, err := c.s3.DeleteBucketLifecycle(ctx, &s3.DeleteBucketLifecycleInput{Bucket: &bucket})
				return err
			}),
		"aws:s3/bucketPolicy:BucketPolicy": bucketSetting(
			schema{
				args: argsOf[pulumis3.BucketPolicyArgs](), state: reflect.TypeFor[pulumis3.BucketPolicy](),
				required: []string{"policy"}, rules: map[string]rule{"bucket": bucketName, "policy": isPolicy},
			},
			// moto knows no conditions: it would take a policy that refuses plain HTTP
			// for one that refuses everybody.
			func(ctx context.Context, c *Cloud, bucket string, in props) error {
				_, err := c.s3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket})
				c.kept.Store(bucket, jsonText(in.get("policy")))
				return err
			},
			func(ctx context.Context, c *Cloud, bucket string) (map[string]any, error) {
				if _, err := c.s3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket}); err != nil {
					return nil, err
				}
				text, ok := c.kept.Load(bucket)
				if !ok {
					return nil, errGone
				}
				return map[string]any{"policy": text}, nil
			},
			func(_ context.Context, c *Cloud, bucket string) error {
				c.kept.Delete(bucket)
				return nil
			}),
	}
}

// bucketSetting is a resource that is one setting of a bucket. S3 replaces the
// complete setting.
func bucketSetting(s schema, put func(context.Context, *Cloud, string, props) error,
	read func(context.Context, *Cloud, string) (map[string]any, error),
	remove func(context.Context, *Cloud, string) error) resourceType {
	return resourceType{
		schema: s, fixed: []string{"bucket"},
		create: func(ctx context.Context, c *Cloud, in props) (string, error) {
			bucket := in.text("bucket")
			return bucket, put(ctx, c, bucket, in)
		},
		read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
			values, err := read(ctx, c, id)
			if err != nil {
				return props{}, s3Gone(err)
			}
			values["bucket"] = id
			return outputs(values), nil
		},
		update: func(ctx context.Context, c *Cloud, id string, _, in props) error { return put(ctx, c, id, in) },
		remove: func(ctx context.Context, c *Cloud, id string, _ props) error { return s3Gone(remove(ctx, c, id)) },
	}
}

// s3Gone recognises the many errors by which S3 says that something is not there.
func s3Gone(err error) error {
	var api smithy.APIError
	if errors.As(err, &api) {
		code := api.ErrorCode()
		if code == "NotFound" || strings.HasPrefix(code, "NoSuch") || strings.HasSuffix(code, "NotFoundError") {
			return errGone
		}
	}
	return err
}

func tagBucket(ctx context.Context, c *Cloud, name string, in props) error {
	if !in.has("tags") {
		_, err := c.s3.DeleteBucketTagging(ctx, &s3.DeleteBucketTaggingInput{Bucket: &name})
		return err
	}
	var tags []types.Tag
	for key, v := range in.textMap("tags") {
		tags = append(tags, types.Tag{Key: aws.String(key), Value: aws.String(v)})
	}
	_, err := c.s3.PutBucketTagging(ctx, &s3.PutBucketTaggingInput{Bucket: &name, Tagging: &types.Tagging{TagSet: tags}})
	return err
}

// removeBucket fails, as S3 does, on a bucket that is not empty, unless the
// program has said that its objects may go too.
func removeBucket(ctx context.Context, c *Cloud, id string, in props) error {
	if in.flag("forceDestroy") {
		pages := s3.NewListObjectsV2Paginator(c.s3, &s3.ListObjectsV2Input{Bucket: &id})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return s3Gone(err)
			}
			var keys []types.ObjectIdentifier
			for _, o := range page.Contents {
				keys = append(keys, types.ObjectIdentifier{Key: o.Key})
			}
			if len(keys) > 0 {
				if _, err := c.s3.DeleteObjects(ctx,
					&s3.DeleteObjectsInput{Bucket: &id, Delete: &types.Delete{Objects: keys}}); err != nil {
					return err
				}
			}
		}
	}
	_, err := c.s3.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &id})
	return s3Gone(err)
}

func putEncryption(ctx context.Context, c *Cloud, bucket string, in props) error {
	var rules []types.ServerSideEncryptionRule
	for _, r := range in.objects("rules") {
		d := r.object("applyServerSideEncryptionByDefault")
		rules = append(rules, types.ServerSideEncryptionRule{
			ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryption(
				d.text("sseAlgorithm")), KMSMasterKeyID: d.textPtr("kmsMasterKeyId")},
			BucketKeyEnabled: aws.Bool(r.flag("bucketKeyEnabled")),
		})
	}
	_, err := c.s3.PutBucketEncryption(ctx, &s3.PutBucketEncryptionInput{Bucket: &bucket,
		ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: rules}})
	return err
}

func readEncryption(ctx context.Context, c *Cloud, bucket string) (map[string]any, error) {
	out, err := c.s3.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: &bucket})
	if err != nil {
		return nil, err
	}
	var rules []any
	for _, r := range out.ServerSideEncryptionConfiguration.Rules {
		d := map[string]any{"sseAlgorithm": string(r.ApplyServerSideEncryptionByDefault.SSEAlgorithm)}
		if id := r.ApplyServerSideEncryptionByDefault.KMSMasterKeyID; aws.ToString(id) != "" {
			d["kmsMasterKeyId"] = *id
		}
		rule := map[string]any{"applyServerSideEncryptionByDefault": d}
		if aws.ToBool(r.BucketKeyEnabled) {
			rule["bucketKeyEnabled"] = true
		}
		rules = append(rules, rule)
	}
	return map[string]any{"rules": rules}, nil
}

// checkLifecycle allows the rules that cleaning up needs: a prefix, and what
// expires when. A rule that does nothing is refused.
func checkLifecycle(in props) error {
	var ids []any
	for _, r := range in.objects("rules") {
		ids = append(ids, r.text("id"))
		if !r.has("expiration") && !r.has("abortIncompleteMultipartUpload") {
			return fmt.Errorf("lifecycle rule %s does nothing", r.text("id"))
		}
		if !r.has("filter") || !r.object("filter").has("prefix") {
			return fmt.Errorf("lifecycle rule %s has no prefix, which may be empty", r.text("id"))
		}
		for _, name := range []string{"transitions", "noncurrentVersionTransitions", "noncurrentVersionExpiration",
			"prefix"} {
			if r.has(name) {
				return fmt.Errorf("cloudtest does not know lifecycle rules with %s", name)
			}
		}
		for name := range r.object("filter").values {
			if name != "prefix" {
				return fmt.Errorf("cloudtest does not know lifecycle filters by %s", name)
			}
		}
	}
	if problem := items(1, 1000)(ids); problem != "" {
		return errors.New("lifecycle rule " + problem)
	}
	return nil
}

func putLifecycle(ctx context.Context, c *Cloud, bucket string, in props) error {
	var rules []types.LifecycleRule
	for _, r := range in.objects("rules") {
		rule := types.LifecycleRule{
			ID: r.textPtr("id"), Status: types.ExpirationStatus(r.text("status")),
			Filter: &types.LifecycleRuleFilter{Prefix: aws.String(r.object("filter").text("prefix"))},
		}
		if e := r.object("expiration"); r.has("expiration") {
			rule.Expiration = &types.LifecycleExpiration{Days: e.numberPtr("days")}
		}
		if a := r.object("abortIncompleteMultipartUpload"); r.has("abortIncompleteMultipartUpload") {
			rule.AbortIncompleteMultipartUpload = &types.AbortIncompleteMultipartUpload{DaysAfterInitiation: a.numberPtr(
				"daysAfterInitiation")}
		}
		rules = append(rules, rule)
	}
	_, err := c.s3.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{Bucket: &bucket,
		LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: rules}})
	return err
}

func readLifecycle(ctx context.Context, c *Cloud, bucket string) (map[string]any, error) {
	out, err := c.s3.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &bucket})
	if err != nil {
		return nil, err
	}
	var rules []any
	for _, r := range out.Rules {
		rule := map[string]any{"id": aws.ToString(r.ID), "status": string(r.Status), "filter": map[string]any{"prefix": ""}}
		if r.Filter != nil {
			rule["filter"] = map[string]any{"prefix": aws.ToString(r.Filter.Prefix)}
		}
		if r.Expiration != nil && r.Expiration.Days != nil {
			rule["expiration"] = map[string]any{"days": int(*r.Expiration.Days)}
		}
		if r.AbortIncompleteMultipartUpload != nil {
			rule["abortIncompleteMultipartUpload"] = map[string]any{"daysAfterInitiation": int(
				aws.ToInt32(r.AbortIncompleteMultipartUpload.DaysAfterInitiation))}
		}
		rules = append(rules, rule)
	}
	return map[string]any{"rules": rules}, nil
}
