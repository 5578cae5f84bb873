package local

import (
	"cmp"
	"context"
	"net"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/sqsserver"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// listen takes the last stack's port if it is free, so that clients' URLs stay valid.
func (s *Stack) listen(last string) (net.Listener, error) {
	if address, ok := strings.CutPrefix(last, "http://"); ok {
		if l, err := net.Listen("tcp", address); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// openQueue opens the queues, and the port where they are to be served.
func (s *Stack) openQueue() (_ net.Listener, err error) {
	before, _ := readOutputs(s.config.Dir)
	l, err := s.listen(before.SQSEndpoint)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	url := "http://" + l.Addr().String()
	s.queue, err = sqsserver.Open(filepath.Join(s.config.Dir, "queue"), sqsserver.Options{BaseURL: url, Region: region,
		AccountID: accountID})
	if err != nil {
		return nil, err
	}
	s.ends = append(s.ends, s.queue.Close)
	dlq, err := s.queue.CreateQueue(sqsserver.Queue{Name: dlqQueue, Retention: retention})
	if err != nil {
		return nil, err
	}
	tasks, err := s.queue.CreateQueue(sqsserver.Queue{Name: tasksQueue, Visibility: s.config.Visibility,
		Retention: retention, DeadLetter: dlqQueue, MaxReceives: maxReceives})
	if err != nil {
		return nil, err
	}
	arn := "arn:aws:sqs:" + region + ":" + accountID + ":"
	s.outputs = stack.Outputs{
		QueueURL: tasks, DLQURL: dlq, QueueARN: arn + tasksQueue, DLQARN: arn + dlqQueue, BucketName: Bucket,
		FunctionName: functionName, FunctionARN: "arn:aws:lambda:" + region + ":" + accountID + ":function:" + functionName,
		EventSourceMappingID: mappingID, Region: region, AccountID: accountID, Architecture: runtime.GOARCH,
		DataPrefix: task.DefaultDataset.Prefix(task.DataKind), RequiredFiles: s.config.Required,
		Endpoints: stack.Endpoints{SQSEndpoint: url, LambdaEndpoint: url, S3Endpoint: before.S3Endpoint,
			AccessKeyID: accessKey, SecretAccessKey: secretKey, Workers: s.config.Workers},
	}
	if image := s.config.Image; image != nil {
		s.outputs.ImageURI, s.outputs.MemoryMB, s.outputs.Generators = image.URI, s.config.Memory, map[string]string{}
		for _, g := range image.Generators {
			s.outputs.Generators[g.Name] = g.Commit
		}
	}
	return l, nil
}

func (s *Stack) serveObjects(ctx context.Context) error {
	log, err := openLog(s.config.Dir, "s3")
	if err != nil {
		return err
	}
	start := func(address string) (*s3server.Server, error) {
		return s3server.Start(ctx, s3server.Config{
			Dir: objectsDir(s.config.Dir), Meta: filepath.Join(s.config.Dir, "object-metadata"), Address: address,
			Bucket: Bucket, Region: region, AccessKey: accessKey, SecretKey: secretKey, Inherit: s.lock,
		}, log)
	}
	const anyPort = "127.0.0.1:0"
	last, _ := strings.CutPrefix(s.outputs.S3Endpoint, "http://")
	if s.s3, err = start(cmp.Or(last, anyPort)); err != nil && last != "" {
		s.s3, err = start(anyPort)
	}
	if err != nil {
		return err
	}
	s.ends = append(s.ends, s.s3.Close)
	s.outputs.S3Endpoint = s.s3.URL()
	s.store = BucketStore(s.outputs)
	go func() {
		<-s.s3.Done()
		s.fail(s.s3.Err())
	}()
	return nil
}

// AWSConfig returns the configuration for clients of the local queue and function, which
// are one server: its endpoint and placeholder credentials, never the user's.
func AWSConfig(o stack.Outputs) aws.Config {
	return aws.Config{
		Region: o.Region, Credentials: credentials.NewStaticCredentialsProvider(o.AccessKeyID, o.SecretAccessKey, ""),
		BaseEndpoint: &o.SQSEndpoint, HTTPClient: store.HTTPClient(nil), Retryer: store.LimitedRetries,
	}
}

// BucketStore returns the store of the default dataset in the local bucket.
func BucketStore(o stack.Outputs) *store.Store {
	c := AWSConfig(o)
	c.BaseEndpoint = &o.S3Endpoint
	return store.New(s3.NewFromConfig(c, store.ClientOptions), o.BucketName)
}
