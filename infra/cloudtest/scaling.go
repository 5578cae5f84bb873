package cloudtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling"
	"github.com/aws/aws-sdk-go-v2/service/applicationautoscaling/types"
	"github.com/pulumi/pulumi-aws/sdk/v6/go/aws/appautoscaling"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
)

// scalingTypes are those that change the number of an ECS service's tasks, in steps.
// https://docs.aws.amazon.com/autoscaling/application/APIReference/API_RegisterScalableTarget.html
// https://docs.aws.amazon.com/autoscaling/application/APIReference/API_PutScalingPolicy.html
func scalingTypes() map[tokens.Type]resourceType {
	of := map[string]rule{"resourceId": matches(`service/[\w-]+/[\w-]+`, 1600), "serviceNamespace": oneOf("ecs"),
		"scalableDimension": oneOf("ecs:service:DesiredCount")}
	with := func(rules map[string]rule) map[string]rule {
		for path, r := range of {
			rules[path] = r
		}
		return rules
	}
	return map[tokens.Type]resourceType{
		"aws:appautoscaling/target:Target": {
			schema: schema{
				args: argsOf[appautoscaling.TargetArgs](), state: reflect.TypeFor[appautoscaling.Target](),
				rules: with(map[string]rule{"minCapacity": between(0, 5000), "maxCapacity": between(0, 5000)}),
				together: func(in props) error {
					if in.number("minCapacity") > in.number("maxCapacity") {
						return fmt.Errorf("minCapacity %d is more than maxCapacity %d", in.number("minCapacity"),
							in.number("maxCapacity"))
					}
					return knows("scalable targets", "minCapacity", "maxCapacity", "resourceId", "serviceNamespace",
						"scalableDimension")(in)
				},
			},
			fixed: []string{"resourceId", "serviceNamespace", "scalableDimension"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				return in.text("resourceId"), putTarget(ctx, c, in)
			},
			read: func(ctx context.Context, c *Cloud, id string, _ props) (props, error) {
				out, err := c.scaling.DescribeScalableTargets(ctx, &applicationautoscaling.DescribeScalableTargetsInput{
					ServiceNamespace: types.ServiceNamespaceEcs, ResourceIds: []string{id}})
				if err != nil {
					return props{}, err
				}
				if len(out.ScalableTargets) == 0 {
					return props{}, errGone
				}
				t := out.ScalableTargets[0]
				return outputs(map[string]any{"arn": aws.ToString(t.ScalableTargetARN), "resourceId": id,
					"minCapacity": int(*t.MinCapacity), "maxCapacity": int(*t.MaxCapacity)}), nil
			},
			update: func(ctx context.Context, c *Cloud, _ string, _, in props) error { return putTarget(ctx, c, in) },
			remove: func(ctx context.Context, c *Cloud, id string, in props) error {
				_, err := c.scaling.DeregisterScalableTarget(ctx, &applicationautoscaling.DeregisterScalableTargetInput{
					ResourceId: &id, ServiceNamespace: namespace(in), ScalableDimension: dimension(in)})
				return scalingGone(err)
			},
		},
		"aws:appautoscaling/policy:Policy": {
			schema: schema{
				args: argsOf[appautoscaling.PolicyArgs](), state: reflect.TypeFor[appautoscaling.Policy](),
				required: []string{"policyType", "stepScalingPolicyConfiguration"},
				rules: with(map[string]rule{
					"name": matches(`\P{C}+`, 256), "policyType": oneOf("StepScaling"),
					"stepScalingPolicyConfiguration.adjustmentType": oneOf("ChangeInCapacity", "PercentChangeInCapacity",
						"ExactCapacity"),
					"stepScalingPolicyConfiguration.metricAggregationType":  oneOf("Average", "Minimum", "Maximum"),
					"stepScalingPolicyConfiguration.cooldown":               between(0, 3600),
					"stepScalingPolicyConfiguration.minAdjustmentMagnitude": between(0, 5000),
					"stepScalingPolicyConfiguration.stepAdjustments":        items(1, 20),
				}),
				together: func(in props) error {
					if _, err := steps(in); err != nil {
						return err
					}
					return knows("scaling policies", "name", "policyType", "resourceId", "serviceNamespace", "scalableDimension",
						"stepScalingPolicyConfiguration")(in)
				},
			},
			name: "name", nameMax: 256, fixed: []string{"name", "resourceId", "serviceNamespace", "scalableDimension"},
			create: func(ctx context.Context, c *Cloud, in props) (string, error) {
				arn, err := putScalingPolicy(ctx, c, in)
				// AWS leaves a policy its ARN when it is put again; moto makes up another.
				c.kept.Store(arnOf(in.text("name")), arn)
				return in.text("name"), err
			},
			read: func(ctx context.Context, c *Cloud, id string, in props) (props, error) {
				out, err := c.scaling.DescribeScalingPolicies(ctx, &applicationautoscaling.DescribeScalingPoliciesInput{
					ServiceNamespace: namespace(in), ResourceId: in.textPtr("resourceId")})
				if err != nil {
					return props{}, err
				}
				i := slices.IndexFunc(out.ScalingPolicies, func(p types.ScalingPolicy) bool { return *p.PolicyName == id })
				arn, ok := c.kept.Load(arnOf(id))
				if i < 0 || !ok {
					return props{}, errGone
				}
				return outputs(map[string]any{"name": id, "arn": arn, "resourceId": *out.ScalingPolicies[i].ResourceId,
					"policyType": string(out.ScalingPolicies[i].PolicyType), "alarmArns": []any{}}), nil
			},
			update: func(ctx context.Context, c *Cloud, _ string, _, in props) error {
				_, err := putScalingPolicy(ctx, c, in)
				return err
			},
			remove: func(ctx context.Context, c *Cloud, id string, in props) error {
				_, err := c.scaling.DeleteScalingPolicy(ctx, &applicationautoscaling.DeleteScalingPolicyInput{PolicyName: &id,
					ResourceId: in.textPtr("resourceId"), ServiceNamespace: namespace(in), ScalableDimension: dimension(in)})
				c.kept.Delete(arnOf(id))
				return scalingGone(err)
			},
		},
	}
}

func arnOf(policy string) string { return "ARN of " + policy }

func namespace(in props) types.ServiceNamespace {
	return types.ServiceNamespace(in.text("serviceNamespace"))
}

func dimension(in props) types.ScalableDimension {
	return types.ScalableDimension(in.text("scalableDimension"))
}

func scalingGone(err error) error {
	if errors.As(err, new(*types.ObjectNotFoundException)) {
		return errGone
	}
	return err
}

func putTarget(ctx context.Context, c *Cloud, in props) error {
	_, err := c.scaling.RegisterScalableTarget(ctx, &applicationautoscaling.RegisterScalableTargetInput{
		ResourceId: in.textPtr("resourceId"), ServiceNamespace: namespace(in), ScalableDimension: dimension(in),
		MinCapacity: in.numberPtr("minCapacity"), MaxCapacity: in.numberPtr("maxCapacity")})
	return err
}

func putScalingPolicy(ctx context.Context, c *Cloud, in props) (arn string, err error) {
	adjustments, err := steps(in)
	if err != nil {
		return "", err
	}
	config := in.object("stepScalingPolicyConfiguration")
	out, err := c.scaling.PutScalingPolicy(ctx, &applicationautoscaling.PutScalingPolicyInput{
		PolicyName: in.textPtr("name"), PolicyType: types.PolicyType(in.text("policyType")),
		ResourceId: in.textPtr("resourceId"), ServiceNamespace: namespace(in), ScalableDimension: dimension(in),
		StepScalingPolicyConfiguration: &types.StepScalingPolicyConfiguration{
			AdjustmentType: types.AdjustmentType(config.text("adjustmentType")), Cooldown: config.numberPtr("cooldown"),
			MetricAggregationType:  types.MetricAggregationType(config.text("metricAggregationType")),
			MinAdjustmentMagnitude: config.numberPtr("minAdjustmentMagnitude"), StepAdjustments: adjustments},
	})
	if err != nil {
		return "", err
	}
	return *out.PolicyARN, nil
}

// steps are a policy's steps. They may neither overlap nor leave a gap, and where they do not begin
// or end at the threshold, they have no end.
// https://docs.aws.amazon.com/autoscaling/application/userguide/step-scaling-policy-overview.html
func steps(in props) ([]types.StepAdjustment, error) {
	var all []types.StepAdjustment
	for _, s := range in.object("stepScalingPolicyConfiguration").objects("stepAdjustments") {
		step := types.StepAdjustment{ScalingAdjustment: s.numberPtr("scalingAdjustment")}
		for name, bound := range map[string]**float64{"metricIntervalLowerBound": &step.MetricIntervalLowerBound,
			"metricIntervalUpperBound": &step.MetricIntervalUpperBound} {
			if !s.has(name) {
				continue
			}
			v, err := strconv.ParseFloat(s.text(name), 64)
			if err != nil {
				return nil, fmt.Errorf("%s is %q, which is no number", name, s.text(name))
			}
			*bound = &v
		}
		all = append(all, step)
	}
	low := func(s types.StepAdjustment) float64 { return or(s.MetricIntervalLowerBound, math.Inf(-1)) }
	high := func(s types.StepAdjustment) float64 { return or(s.MetricIntervalUpperBound, math.Inf(1)) }
	slices.SortFunc(all, func(a, b types.StepAdjustment) int {
		if low(a) < low(b) {
			return -1
		}
		return 1
	})
	for i, s := range all {
		switch {
		case low(s) >= high(s), s.MetricIntervalLowerBound == nil && s.MetricIntervalUpperBound == nil:
			return nil, fmt.Errorf("a step from %v to %v has no room", low(s), high(s))
		case i > 0 && low(s) != high(all[i-1]):
			return nil, fmt.Errorf("a step ends at %v and the next begins at %v", high(all[i-1]), low(s))
		case i == 0 && low(s) < 0 && s.MetricIntervalLowerBound != nil,
			i == len(all)-1 && high(s) > 0 && s.MetricIntervalUpperBound != nil:
			return nil, errors.New("there must be a step without an end on each side of the threshold that has steps")
		}
	}
	return all, nil
}

func or(v *float64, otherwise float64) float64 {
	if v == nil {
		return otherwise
	}
	return *v
}
