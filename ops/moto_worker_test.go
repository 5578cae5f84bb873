package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/rogpeppe/go-internal/testscript"

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
	var log bytes.Buffer
	h, err := worker.New(worker.Config{Bucket: c.BucketName, Generators: ts.MkAbs("image"), QueueURL: c.QueueURL,
		DLQURL: c.DLQURL, Region: c.Region, Function: c.FunctionName, Image: c.ImageURI}, store.New(c.s3, c.BucketName),
		c.sqs, &log)
	ts.Check(err)
	defer h.Close()
	for done := 0; ; done++ {
		out, err := c.sqs.ReceiveMessage(context.Background(), &sqs.ReceiveMessageInput{QueueUrl: &c.QueueURL,
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}})
		ts.Check(err)
		if len(out.Messages) == 0 {
			ts.Logf("%d tasks", done)
			return
		}
		m := out.Messages[0]
		payload, err := json.Marshal(events.SQSEvent{Records: []events.SQSMessage{{MessageId: *m.MessageId,
			ReceiptHandle: *m.ReceiptHandle, Body: *m.Body, Attributes: m.Attributes}}})
		ts.Check(err)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		answer, err := h.Handle(lambdacontext.NewContext(ctx,
			&lambdacontext.LambdaContext{AwsRequestID: strconv.Itoa(done)}), payload)
		cancel()
		ts.Check(err)
		if got, ok := answer.(events.SQSEventResponse); !ok || len(got.BatchItemFailures) > 0 {
			ts.Fatalf("%+v\n%s", answer, &log)
		}
		_, err = c.sqs.DeleteMessage(context.Background(),
			&sqs.DeleteMessageInput{QueueUrl: &c.QueueURL, ReceiptHandle: m.ReceiptHandle})
		ts.Check(err)
	}
}
