package cloudtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	pulumilambda "github.com/pulumi/pulumi-aws/sdk/v6/go/aws/lambda"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

// https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
// https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html
func functionTypes() map[tokens.Type]resourceType {
	return map[tokens.Type]resourceType{
		"aws:lambda/function:Function": {
			schema: schema{
				args: argsOf[pulumilambda.FunctionArgs](), state: reflect.TypeFor[pulumilambda.Function](),
				required: []string{"packageType", "imageUri"},
				rules: map[string]rule{
					"name": matches(`[A-Za-z0-9_-]+`, 64), "role": matches(`arn:aws:iam::\d{12}:role/.+`, 2048),
					"packageType": oneOf("Image"), "imageUri": matches(`[^@\s]+@sha256:[0-9a-f]{64}`, 1024),
					"memorySize": between(128, 10240), "timeout": between(1, 900), "ephemeralStorage.size": between(512, 10240),
					"architectures": items(1, 1), "architectures[]": oneOf("x86_64", "arm64"),
					"reservedConcurrentExecutions": between(-1, 1000), "loggingConfig.logFormat": oneOf("Text", "JSON"),
					"loggingConfig.logGroup": matches(`[a-zA-Z0-9._/#-]+`, 512),
				},
				together: func(in props) error {
					for _, name := range []string{"handler", "runtime", "code", "s3Bucket", "s3Key", "layers"} {
						if in.has(name) {
							return fmt.Errorf("a function with an image has no %s", name)
						}
					}
					for key := range in.object("environment").textMap("variables") {
						if strings.HasPrefix(key, "AWS_") || strings.HasPrefix(key, "LAMBDA_") {
							return fmt.Errorf("the environment variable %s is reserved", key)
						}
					}
					return nil
				},
			},
			name: "name", nameMax: 64, fixed: []string{"name", "packageType"}, volatile: []string{"codeSha256", "sourceCodeHash",
				"lastModified", "version", "qualifiedArn"},
			create: createFunction, read: readFunction, update: updateFunction,
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				_, err := c.lambda.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &id})
				return lambdaGone(err)
			},
		},
		"aws:lambda/functionRecursionConfig:FunctionRecursionConfig": {
			schema: schema{
				args:  argsOf[pulumilambda.FunctionRecursionConfigArgs](),
				state: reflect.TypeFor[pulumilambda.FunctionRecursionConfig](),
				rules: map[string]rule{"functionName": matches(`[A-Za-z0-9_-]+`, 64), "recursiveLoop": oneOf("Allow", "Terminate")},
			},
			fixed: []string{"functionName"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				id := in.text("functionName")
				return id, putRecursion(ctx, c, id, in.text("recursiveLoop"))
			},
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				v, ok := c.kept.Load(recursionOf(id))
				if _, err := c.lambda.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &id}); err != nil || !ok {
					return props{}, errors.Join(lambdaGone(err), errGone)
				}
				return outputs(map[string]any{"functionName": id, "recursiveLoop": v}), nil
			},
			update: func(ctx context.Context, c *Cloud, id string, _, in props) error {
				return putRecursion(ctx, c, id, in.text("recursiveLoop"))
			},
			remove: func(_ context.Context, c *Cloud, id string, _ props) error {
				c.kept.Delete(recursionOf(id))
				return nil
			},
		},
		"aws:lambda/eventSourceMapping:EventSourceMapping": {
			schema: schema{
				args: argsOf[pulumilambda.EventSourceMappingArgs](), state: reflect.TypeFor[pulumilambda.EventSourceMapping](),
				required: []string{"eventSourceArn"},
				rules: map[string]rule{
					"eventSourceArn": arn("sqs"), "functionName": matches(`(arn:aws:lambda:.+:function:)?[A-Za-z0-9_-]+(:[A-Za-z0-9_-]+)?`, 256),
					"batchSize":             between(1, 10000),
					"functionResponseTypes": items(1, 1), "functionResponseTypes[]": oneOf("ReportBatchItemFailures"),
					"scalingConfig.maximumConcurrency": between(2, 1000), "maximumBatchingWindowInSeconds": between(0, 300),
				},
				together: func(in props) error {
					if in.number("batchSize") > 10 && in.number("maximumBatchingWindowInSeconds") == 0 {
						return errors.New("a batch size above 10 needs a batching window")
					}
					for _, name := range []string{"startingPosition", "topics", "queues", "parallelizationFactor",
						"maximumRetryAttempts", "bisectBatchOnFunctionError"} {
						if in.has(name) {
							return fmt.Errorf("a mapping of an SQS queue has no %s", name)
						}
					}
					return nil
				},
			},
			fixed:  []string{"eventSourceArn"},
			create: createMapping, read: readMapping,
			update: func(ctx context.Context, c *Cloud, id string, _, in props) error {
				c.kept.Store(functionOf(id), in.text("functionName"))
				_, err := c.lambda.UpdateEventSourceMapping(ctx, &lambda.UpdateEventSourceMappingInput{
					UUID: &id, FunctionName: in.textPtr("functionName"), BatchSize: in.numberPtr("batchSize"), Enabled: enabled(in),
					FunctionResponseTypes: responseTypes(in), ScalingConfig: scaling(in),
					MaximumBatchingWindowInSeconds: in.numberPtr("maximumBatchingWindowInSeconds"),
				})
				return err
			},
			remove: func(ctx context.Context, c *Cloud, id string, _ props) error {
				_, err := c.lambda.DeleteEventSourceMapping(ctx, &lambda.DeleteEventSourceMappingInput{UUID: &id})
				return lambdaGone(err)
			},
		},
	}
}

func lambdaGone(err error) error {
	if errors.As(err, new(*types.ResourceNotFoundException)) {
		return errGone
	}
	return err
}

func createFunction(ctx context.Context, c *Cloud, in props) (string, error) {
	if err := functionCanBe(ctx, c, in); err != nil {
		return "", err
	}
	keepLogGroup(c, in)
	_, err := c.lambda.CreateFunction(ctx, &lambda.CreateFunctionInput{
		FunctionName: in.textPtr("name"), Role: in.textPtr("role"), PackageType: types.PackageTypeImage,
		Code:        &types.FunctionCode{ImageUri: in.textPtr("imageUri")},
		Description: in.textPtr("description"), MemorySize: in.numberPtr("memorySize"), Timeout: in.numberPtr("timeout"),
		Architectures: []types.Architecture{functionArchitecture(in)}, EphemeralStorage: ephemeral(in),
		Environment: environment(in), Publish: in.flag("publish"),
		Tags: in.textMap("tags"),
	})
	if err != nil {
		return "", err
	}
	if in.flag("publish") {
		c.kept.Store(versionImage(in.text("name"), "1"), in.text("imageUri"))
	}
	return in.text("name"), reserve(ctx, c, in)
}

// versionImage is where the image of a version is kept: an update of the function's
// code changes that of all versions in moto.
func versionImage(function, version string) string { return "image of " + function + ":" + version }

func reserve(ctx context.Context, c *Cloud, in props) error {
	if !in.has("reservedConcurrentExecutions") || in.number("reservedConcurrentExecutions") < 0 {
		_, err := c.lambda.DeleteFunctionConcurrency(ctx,
			&lambda.DeleteFunctionConcurrencyInput{FunctionName: in.textPtr("name")})
		return err
	}
	_, err := c.lambda.PutFunctionConcurrency(ctx, &lambda.PutFunctionConcurrencyInput{FunctionName: in.textPtr("name"),
		ReservedConcurrentExecutions: in.numberPtr("reservedConcurrentExecutions")})
	return err
}

// functionCanBe makes the checks that Lambda makes and moto does not: the role is
// there, and the image is one that Lambda can run.
func functionCanBe(ctx context.Context, c *Cloud, in props) error {
	if _, err := rolePolicies(ctx, c, in.text("role")); err != nil {
		return fmt.Errorf("the role %s: %w", in.text("role"), err)
	}
	repository, digest, _ := strings.Cut(in.text("imageUri"), "@")
	architecture := map[types.Architecture]string{"x86_64": "amd64", "arm64": "arm64"}[functionArchitecture(in)]
	return c.registry.runnable(ctx, repository, digest, architecture)
}

func functionArchitecture(in props) types.Architecture {
	if a := in.texts("architectures"); len(a) == 1 {
		return types.Architecture(a[0])
	}
	return types.ArchitectureX8664
}

func ephemeral(in props) *types.EphemeralStorage {
	if !in.has("ephemeralStorage") {
		return &types.EphemeralStorage{Size: aws.Int32(512)}
	}
	return &types.EphemeralStorage{Size: in.object("ephemeralStorage").numberPtr("size")}
}

func environment(in props) *types.Environment {
	return &types.Environment{Variables: in.object("environment").textMap("variables")}
}

// keepLogGroup keeps where a function logs to, which moto does not.
func keepLogGroup(c *Cloud, in props) {
	group := in.object("loggingConfig").text("logGroup")
	if group == "" {
		group = "/aws/lambda/" + in.text("name")
	}
	c.kept.Store(logGroupOf(in.text("name")), group)
}

func logGroupOf(function string) string { return "log group of " + function }

func readFunction(ctx context.Context, c *Cloud, id string, in props) (props, error) {
	out, err := c.lambda.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &id})
	if err != nil {
		return props{}, lambdaGone(err)
	}
	f := out.Configuration
	variables := map[string]any{}
	if f.Environment != nil {
		variables = anyMap(f.Environment.Variables)
	}
	values := map[string]any{
		"name": id, "arn": *f.FunctionArn, "role": *f.Role, "imageUri": aws.ToString(out.Code.ImageUri),
		"packageType": string(f.PackageType),
		"memorySize":  int(aws.ToInt32(f.MemorySize)), "timeout": int(aws.ToInt32(f.Timeout)),
		"lastModified": aws.ToString(f.LastModified),
		"codeSha256":   aws.ToString(f.CodeSha256), "sourceCodeHash": aws.ToString(f.CodeSha256),
		"version":       aws.ToString(f.Version),
		"architectures": []any{string(f.Architectures[0])},
		"invokeArn": "arn:aws:apigateway:" + c.Region + ":lambda:path/2015-03-31/functions/" + *f.FunctionArn +
			"/invocations",
	}
	if in.flag("publish") {
		versions, err := c.lambda.ListVersionsByFunction(ctx, &lambda.ListVersionsByFunctionInput{FunctionName: &id})
		if err != nil {
			return props{}, err
		}
		values["version"] = *versions.Versions[len(versions.Versions)-1].Version
	}
	if in.has("reservedConcurrentExecutions") && out.Concurrency != nil {
		values["reservedConcurrentExecutions"] = int(aws.ToInt32(out.Concurrency.ReservedConcurrentExecutions))
	}
	if in.has("environment") {
		values["environment"] = map[string]any{"variables": variables}
	}
	if in.has("ephemeralStorage") && f.EphemeralStorage != nil {
		values["ephemeralStorage"] = map[string]any{"size": int(aws.ToInt32(f.EphemeralStorage.Size))}
	}
	if len(out.Tags) > 0 {
		values["tags"] = anyMap(out.Tags)
	}
	return outputs(values), nil
}

// versioned are the inputs that a version of a function has: AWS and the real provider publish none
// for a change of the others, such as reserved concurrency.
var versioned = []string{"role", "description", "memorySize", "timeout", "ephemeralStorage", "environment",
	"loggingConfig", "imageUri", "architectures"}

// updateFunction calls Lambda in the order of the real provider: the configuration first,
// then the image, and a version of both last.
func updateFunction(ctx context.Context, c *Cloud, id string, old, in props) error {
	keepLogGroup(c, in)
	_, err := c.lambda.UpdateFunctionConfiguration(ctx, &lambda.UpdateFunctionConfigurationInput{
		FunctionName: &id, Role: in.textPtr("role"), Description: in.textPtr("description"),
		MemorySize: in.numberPtr("memorySize"), Timeout: in.numberPtr("timeout"),
		EphemeralStorage: ephemeral(in), Environment: environment(in),
	})
	if err != nil {
		return err
	}
	if err := reserve(ctx, c, in); err != nil {
		return err
	}
	if err := functionCanBe(ctx, c, in); err != nil {
		return err
	}
	if old.text("imageUri") != in.text("imageUri") || functionArchitecture(old) != functionArchitecture(in) {
		if c.RefuseImages.Load() {
			return errors.New("InvalidParameterValueException: the image cannot be used")
		}
		if _, err := c.lambda.UpdateFunctionCode(ctx, &lambda.UpdateFunctionCodeInput{FunctionName: &id,
			ImageUri: in.textPtr("imageUri"), Architectures: []types.Architecture{functionArchitecture(in)}}); err != nil {
			return err
		}
	}
	if in.flag("publish") && slices.ContainsFunc(versioned, func(name string) bool {
		return !reflect.DeepEqual(old.get(name), in.get(name))
	}) {
		v, err := c.lambda.PublishVersion(ctx, &lambda.PublishVersionInput{FunctionName: &id})
		if err != nil {
			return err
		}
		c.kept.Store(versionImage(id, *v.Version), in.text("imageUri"))
	}
	arn := "arn:aws:lambda:" + c.Region + ":" + c.Account + ":function:" + id
	if gone := goneTags(old, in); len(gone) > 0 {
		if _, err := c.lambda.UntagResource(ctx, &lambda.UntagResourceInput{Resource: &arn, TagKeys: gone}); err != nil {
			return err
		}
	}
	if tags := in.textMap("tags"); len(tags) > 0 {
		_, err = c.lambda.TagResource(ctx, &lambda.TagResourceInput{Resource: &arn, Tags: tags})
	}
	return err
}

// putRecursion keeps what moto has no room for.
func putRecursion(ctx context.Context, c *Cloud, function, loop string) error {
	if _, err := c.lambda.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &function}); err != nil {
		return err
	}
	c.kept.Store(recursionOf(function), loop)
	return nil
}

func recursionOf(function string) string { return "recursion of " + function }

func enabled(in props) *bool { return aws.Bool(!in.has("enabled") || in.flag("enabled")) }

func responseTypes(in props) []types.FunctionResponseType {
	var all []types.FunctionResponseType
	for _, t := range in.texts("functionResponseTypes") {
		all = append(all, types.FunctionResponseType(t))
	}
	return all
}

func scaling(in props) *types.ScalingConfig {
	return &types.ScalingConfig{MaximumConcurrency: in.object("scalingConfig").numberPtr("maximumConcurrency")}
}

func createMapping(ctx context.Context, c *Cloud, in props) (string, error) {
	if err := mappingCanBe(ctx, c, in); err != nil {
		return "", err
	}
	input := &lambda.CreateEventSourceMappingInput{
		FunctionName: in.textPtr("functionName"), EventSourceArn: in.textPtr("eventSourceArn"),
		BatchSize: in.numberPtr("batchSize"), Enabled: enabled(in),
		FunctionResponseTypes: responseTypes(in), ScalingConfig: scaling(in),
		MaximumBatchingWindowInSeconds: in.numberPtr("maximumBatchingWindowInSeconds"), Tags: in.textMap("tags"),
	}
	out, err := c.lambda.CreateEventSourceMapping(ctx, input)
	if err != nil {
		return "", err
	}
	// moto itself would take each message that is sent to the queue and try to run
	// the function in a container of its own; messages are this package's to
	// deliver. It reads the mapping made last for the queue: one that is
	// disabled, which need not stay.
	input.Enabled = aws.Bool(false)
	last, err := c.lambda.CreateEventSourceMapping(ctx, input)
	if err != nil {
		return "", err
	}
	c.kept.Store(functionOf(*out.UUID), in.text("functionName"))
	_, err = c.lambda.DeleteEventSourceMapping(ctx, &lambda.DeleteEventSourceMappingInput{UUID: last.UUID})
	return *out.UUID, err
}

// functionOf is where the function or alias of a mapping is kept: moto resolves an alias
// when the mapping is made, once and for all.
func functionOf(mapping string) string { return "function of " + mapping }

// mappingCanBe makes the checks that Lambda makes and moto does not: the role can
// take messages from the queue already, and a message stays hidden for as long as
// an invocation may take.
func mappingCanBe(ctx context.Context, c *Cloud, in props) error {
	f, err := c.lambda.GetFunctionConfiguration(ctx,
		&lambda.GetFunctionConfigurationInput{FunctionName: in.textPtr("functionName")})
	if err != nil {
		return err
	}
	policies, err := rolePolicies(ctx, c, *f.Role)
	if err != nil {
		return err
	}
	queue := in.text("eventSourceArn")
	for _, action := range []string{"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"} {
		if !allows(policies, action, queue, nil) {
			return fmt.Errorf("the function's role may not %s on %s", action, queue)
		}
	}
	url, err := c.sqs.GetQueueUrl(ctx,
		&sqs.GetQueueUrlInput{QueueName: aws.String(queue[strings.LastIndex(queue, ":")+1:])})
	if err != nil {
		return err
	}
	q, err := c.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: url.QueueUrl,
		AttributeNames: []sqstypes.QueueAttributeName{"VisibilityTimeout"}})
	if err != nil {
		return err
	}
	var visibility int32
	if _, err := fmt.Sscan(q.Attributes["VisibilityTimeout"], &visibility); err != nil {
		return err
	}
	if timeout := aws.ToInt32(f.Timeout); timeout > visibility {
		return fmt.Errorf("the function's timeout of %d s is longer than the queue's visibility timeout of %d s", timeout,
			visibility)
	}
	return nil
}

func readMapping(ctx context.Context, c *Cloud, id string, in props) (props, error) {
	out, err := c.lambda.GetEventSourceMapping(ctx, &lambda.GetEventSourceMappingInput{UUID: &id})
	if err != nil {
		return props{}, lambdaGone(err)
	}
	state := aws.ToString(out.State)
	values := map[string]any{
		"uuid": id, "eventSourceArn": *out.EventSourceArn, "functionArn": *out.FunctionArn,
		"batchSize": int(aws.ToInt32(out.BatchSize)),
		"state":     state, "enabled": state == "Enabled", "arn": "arn:aws:lambda:" + c.Region + ":" + c.Account +
			":event-source-mapping:" + id,
	}
	var answers []any
	for _, t := range out.FunctionResponseTypes {
		answers = append(answers, string(t))
	}
	if answers != nil {
		values["functionResponseTypes"] = answers
	}
	if in.has("scalingConfig") && out.ScalingConfig != nil {
		values["scalingConfig"] = map[string]any{"maximumConcurrency": int(aws.ToInt32(out.ScalingConfig.MaximumConcurrency))}
	}
	return outputs(values), nil
}
