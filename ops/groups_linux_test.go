package main

import (
	"slices"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// groups takes the messages that wait in the task queue and returns the group of each.
func (s *site) groups() (list []string) {
	for {
		out, err := s.sqs.ReceiveMessage(s.Context(), &sqs.ReceiveMessageInput{QueueUrl: &s.QueueURL,
			MaxNumberOfMessages:         10,
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll}})
		must(s, err)
		if len(out.Messages) == 0 {
			return list
		}
		for _, m := range out.Messages {
			list = append(list, m.Attributes["MessageGroupId"])
			_, err := s.sqs.DeleteMessage(s.Context(), &sqs.DeleteMessageInput{QueueUrl: &s.QueueURL,
				ReceiptHandle: m.ReceiptHandle})
			must(s, err)
		}
	}
}

// Every message of a run is of the run's group, also when it is sent again.
func TestGroups(t *testing.T) {
	t.Parallel()
	s := localSite(t, 3, "good")
	s.submit("r", 6, 4, "good")
	if got := s.groups(); !slices.Equal(got, []string{"r", "r"}) {
		t.Errorf("submit: %q", got)
	}
	for _, x := range []task.Task{{Generator: "good", NumSamples: 4, Seed: 3, RunID: "r", ChunkSize: 2},
		{Generator: "good", NumSamples: 1, Seed: 3}} { // one of no run
		body := x.Body()
		_, err := s.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &s.DLQURL, MessageBody: &body})
		must(t, err)
	}
	s.ops("dlq", "replay", "--yes")
	if got := s.groups(); len(got) != 2 || !slices.Contains(got, "r") || !slices.Contains(got, "") {
		t.Errorf("replay: %q", got)
	}
}

// A repair need not wait for the tasks that are in the queue before it: one worker takes them in turn.
func TestRepairPassesBacklog(t *testing.T) {
	t.Parallel()
	s := localSite(t, 3, "good", "lights")
	s.submit("old", 8, 4, "lights")
	s.groups() // they are lost
	s.submit("backlog", 300, 4, "good")
	s.ops("repair", "--run", "old", "--yes")
	cmd, _ := s.atWork(4, "lights", "--workers", "1")
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	must(t, cmd.Wait())
	if n := len(s.receipts("good")); n > 8 {
		t.Errorf("%d of 150 chunks of the backlog were made before", n)
	}
}
