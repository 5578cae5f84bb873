package web

import (
	"context"
	"errors"
	"testing"
)

type noTool struct{}

func (*noTool) Close() {}

// A request that is cancelled does not wait until it is known whether there is a tool.
func TestAwait(t *testing.T) {
	t.Parallel()
	asked, answer, none := make(chan bool), make(chan bool), errors.New("none")
	x := tool[*noTool]{find: func() (*noTool, error) { close(asked); <-answer; return nil, none }}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if err := x.await(ctx); err != nil {
		t.Errorf("nobody knows yet: %v", err)
	}
	close(answer)
	if err := x.await(t.Context()); !errors.Is(err, none) {
		t.Errorf("there is no tool: %v", err)
	}
}
