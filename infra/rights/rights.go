// Package rights has the policy of the worker, which Pulumi attaches to the function's
// role and ops prints for workers elsewhere, and what IAM policies are made of.
package rights

import (
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Policy is an IAM policy document.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
type Policy struct {
	Version   string
	Statement []Statement
}

// Statement is a statement of a policy.
type Statement struct {
	Sid       string
	Effect    string
	Principal map[string]string              `json:",omitempty"`
	Action    []string                       `json:",omitempty"`
	Resource  []string                       `json:",omitempty"`
	Condition map[string]map[string][]string `json:",omitempty"`
}

// Effects of a statement.
const (
	Allow = "Allow"
	Deny  = "Deny"
)

// Document returns the policy of statements.
func Document(statements ...Statement) Policy { return Policy{"2012-10-17", statements} }

// OfStack returns the policy of a worker of a deployed stack that runs elsewhere.
func OfStack(o stack.Outputs) Policy {
	partition := "aws"
	if parts := strings.Split(o.QueueARN, ":"); len(parts) > 1 {
		partition = parts[1]
	}
	return Document(Worker("arn:"+partition+":s3:::"+o.BucketName, o.QueueARN, o.DLQARN,
		strings.Join([]string{"arn", partition, "logs", o.Region, o.AccountID, "log-group", o.LogGroupName}, ":"))...)
}

// Start is what ECS may do to start a worker: pull images from a repository and write to a log group,
// which are given by their ARNs. The token is for every registry that allows the role.
func Start(repository, logs string) []Statement {
	return []Statement{
		{Sid: "Token", Effect: Allow, Action: []string{"ecr:GetAuthorizationToken"}, Resource: []string{"*"}},
		{Sid: "Pull", Effect: Allow, Resource: []string{repository}, Action: []string{
			"ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}},
		{Sid: "Log", Effect: Allow, Action: []string{"logs:CreateLogStream", "logs:PutLogEvents"},
			Resource: []string{logs + ":*"}},
	}
}

// Worker is what a worker may do with its bucket, its queue, its DLQ and its log group, which are given by their ARNs:
// what worker/store and worker/queue.go call, and what Lambda, or ops worker, does in the worker's name.
func Worker(bucket, queue, dlq, logs string) []Statement {
	below := func(base string, prefixes ...string) (all []string) {
		for _, p := range prefixes {
			all = append(all, base+p+"*")
		}
		return all
	}
	objects := bucket + "/"
	return []Statement{
		{Sid: "Write", Effect: Allow, Action: []string{"s3:PutObject"},
			Resource: below(objects, task.DataKind, task.ReceiptKind, task.FailureKind, task.ManifestKind)},
		// The worker reads no samples, and deletes nothing else.
		{Sid: "Read", Effect: Allow, Action: []string{"s3:GetObject"}, Resource: below(objects, task.ReceiptKind,
			task.ManifestKind)},
		{Sid: "Replace", Effect: Allow, Action: []string{"s3:DeleteObject"}, Resource: below(objects, task.DataKind)},
		{Sid: "GiveUpShard", Effect: Allow, Action: []string{"s3:AbortMultipartUpload"},
			Resource: below(objects, task.DataKind)},
		{Sid: "List", Effect: Allow, Action: []string{"s3:ListBucket"}, Resource: []string{bucket},
			Condition: map[string]map[string][]string{
				"StringLike": {"s3:prefix": below("", task.DataKind, task.ManifestKind)},
			}},
		{Sid: "Take", Effect: Allow, Resource: []string{queue}, Action: []string{
			"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes",
			"sqs:SendMessage",
		}},
		{Sid: "MoveToDLQ", Effect: Allow, Action: []string{"sqs:SendMessage"}, Resource: []string{dlq}},
		{Sid: "Log", Effect: Allow, Action: []string{"logs:CreateLogStream", "logs:PutLogEvents"},
			Resource: []string{logs + ":*"}},
	}
}
