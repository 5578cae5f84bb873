package sqsserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"golang.org/x/sync/errgroup"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// BenchmarkSQS compares the rates at which this endpoint and moto take and give
// messages, ten a request and eight requests at once, with the same client.
func BenchmarkSQS(b *testing.B) {
	moto := motoURL(b)
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	web := httptest.NewServer(s)
	b.Cleanup(func() {
		web.Close()
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	s.SetURL(web.URL)
	var ours, theirs, sends, receives []float64
	var sent []float64
	for n := range max(3, b.N) {
		// Many more here: they are to take as long.
		send, receive := rates(b, client(web.URL), fmt.Sprintf("q%d", n), 10_000)
		slowSend, slowReceive := rates(b, client(moto), fmt.Sprintf("q%d-%d", n, time.Now().UnixNano()), 240)
		sends, receives = append(sends, send/slowSend), append(receives, receive/slowReceive)
		sent, ours, theirs = append(sent, send), append(ours, receive), append(theirs, slowSend)
	}
	median := func(list []float64) float64 {
		slices.Sort(list)
		return list[len(list)/2]
	}
	b.ReportMetric(median(sends), "times-faster-send")
	b.ReportMetric(median(receives), "times-faster-receive")
	b.ReportMetric(median(sent), "sends/s")
	b.ReportMetric(median(ours), "receives/s")
	b.ReportMetric(median(theirs), "moto-sends/s")
	b.ReportMetric(0, "ns/op")
}

// rates sends messages to a new queue, receives and deletes them, and returns how
// many of each were done a second.
func rates(b *testing.B, c *sqs.Client, name string, messages int) (send, receive float64) {
	b.Helper()
	const ten, atOnce = 10, 8
	queue := must(c.CreateQueue(b.Context(), &sqs.CreateQueueInput{QueueName: &name})).QueueUrl
	body := task.Task{Generator: "maze-task-data-generator", StartIndex: 4700, NumSamples: 100, Seed: 42,
		RunID: "20261124t134109.136-cf693947", Format: task.Files, ChunkSize: 20}.Body()
	each := func(do func(ctx context.Context) error) float64 {
		began := time.Now()
		group, ctx := errgroup.WithContext(b.Context())
		for range atOnce {
			group.Go(func() error {
				for range messages / ten / atOnce {
					if err := do(ctx); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			b.Fatal(err)
		}
		return float64(messages) / time.Since(began).Seconds()
	}
	send = each(func(ctx context.Context) error {
		in := &sqs.SendMessageBatchInput{QueueUrl: queue}
		for i := range ten {
			in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)),
				MessageBody: &body})
		}
		out, err := c.SendMessageBatch(ctx, in)
		if err == nil && len(out.Successful) != ten {
			err = fmt.Errorf("%d of %d were sent", len(out.Successful), ten)
		}
		return err
	})
	receive = each(func(ctx context.Context) error {
		out, err := c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: queue, MaxNumberOfMessages: ten})
		if err != nil {
			return err
		}
		in := &sqs.DeleteMessageBatchInput{QueueUrl: queue}
		for i, m := range out.Messages {
			in.Entries = append(in.Entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)),
				ReceiptHandle: m.ReceiptHandle})
		}
		if len(in.Entries) != ten {
			return fmt.Errorf("%d messages were received, want %d", len(in.Entries), ten)
		}
		_, err = c.DeleteMessageBatch(ctx, in)
		return err
	})
	return send, receive
}

// motoURL is a moto server: the one that MOTO_ENDPOINT names, or one of the
// moto_server on the PATH.
func motoURL(b *testing.B) string {
	b.Helper()
	if url := os.Getenv("MOTO_ENDPOINT"); url != "" {
		return url
	}
	program, err := exec.LookPath("moto_server")
	if err != nil {
		b.Skip("MOTO_ENDPOINT is not set and there is no moto_server on the PATH: nothing to compare with")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	cmd := exec.Command(program, "-H", "127.0.0.1", "-p", port)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill() // an error if it has ended before
		_ = cmd.Wait()
	})
	url := "http://127.0.0.1:" + port
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if answer, err := http.Get(url + "/moto-api/data.json"); err == nil {
			answer.Body.Close()
			return url
		}
		if time.Since(began) > time.Minute {
			b.Fatalf("%s did not begin to listen", program)
		}
	}
}
