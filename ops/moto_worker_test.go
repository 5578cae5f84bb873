package main

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/workers"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// deployGenerators installs generators as an image has them, and names them in the stack
// outputs: deploy FOLDER
func deployGenerators(ts *testscript.TestScript, neg bool, args []string) {
	c := ts.Value("moto").(*motoCloud)
	b := environment.Builder{Root: ts.MkAbs(args[0]), Dir: ts.MkAbs("image"),
		Python: "/usr/bin/python3"} // as on the script's PATH
	index, err := b.Build(context.Background())
	ts.Check(err)
	c.Generators, c.Locks = map[string]string{}, map[string]string{}
	for _, g := range index.Generators {
		c.Generators[g.Name], c.Locks[g.Name] = g.Commit, g.Lock
	}
	_, err = c.save(ts.MkAbs("."))
	ts.Check(err)
}

// workOnTasks is the function: it hands each task in the queue to a worker of the generators
// that were deployed, until there are none.
func workOnTasks(ts *testscript.TestScript, neg bool, args []string) {
	c := ts.Value("moto").(*motoCloud)
	f, err := newFunction(ts.MkAbs("image"), &c.Outputs, store.New(c.s3, c.BucketName), c.sqs)
	ts.Check(err)
	for done := 0; ; done++ {
		out, err := c.sqs.ReceiveMessage(context.Background(), &sqs.ReceiveMessageInput{QueueUrl: &c.QueueURL,
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}})
		ts.Check(err)
		if len(out.Messages) == 0 {
			ts.Logf("%d tasks", done)
			return
		}
		ok, err := f.invoke(context.Background(), &out.Messages[0], time.Minute)
		ts.Check(err)
		if !ok {
			ts.Fatalf("%s", &f.log)
		}
	}
}

// function is the function of a stack: a worker in this process.
type function struct {
	*worker.Handler
	outputs *stack.Outputs
	sqs     *sqs.Client
	log     bytes.Buffer
}

func newFunction(generators string, o *stack.Outputs, st *store.Store, client *sqs.Client) (*function, error) {
	f := &function{outputs: o, sqs: client}
	var err error
	f.Handler, err = worker.New(worker.Config{Bucket: o.BucketName, Generators: generators, QueueURL: o.QueueURL,
		DLQURL: o.DLQURL, Region: o.Region, Function: o.FunctionName, Image: o.ImageURI}, st, client, &f.log)
	return f, err
}

// invoke does what Lambda does with a message, and reports whether it is done with.
func (f *function) invoke(ctx context.Context, m *types.Message, timeout time.Duration) (done bool, err error) {
	record := events.SQSMessage{MessageId: *m.MessageId, ReceiptHandle: *m.ReceiptHandle, Body: *m.Body,
		Attributes: m.Attributes, MessageAttributes: map[string]events.SQSMessageAttribute{}}
	for name, a := range m.MessageAttributes {
		record.MessageAttributes[name] = events.SQSMessageAttribute{StringValue: a.StringValue, BinaryValue: a.BinaryValue,
			DataType: *a.DataType}
	}
	payload, err := json.Marshal(events.SQSEvent{Records: []events.SQSMessage{record}})
	if err != nil {
		return false, err
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, err := f.Handle(lambdacontext.NewContext(limited,
		&lambdacontext.LambdaContext{AwsRequestID: workers.RequestID(*m.ReceiptHandle)}), payload)
	if err != nil {
		return false, err
	}
	if got, ok := answer.(events.SQSEventResponse); !ok || len(got.BatchItemFailures) > 0 {
		return false, nil
	}
	_, err = f.sqs.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &f.outputs.QueueURL,
		ReceiptHandle: m.ReceiptHandle})
	return true, err
}
