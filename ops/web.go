package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"runtime"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/web"
)

type UICmd struct {
	inDataset
	Addr     string `help:"Address to listen on. Only this machine reaches 127.0.0.1; port 0 takes a free one." default:"127.0.0.1:0" placeholder:"HOST:PORT"`
	Open     bool   `help:"Open it in the browser."`
	ReadOnly bool   `help:"Refuse everything that changes the stack or the dataset."`
}

func (*UICmd) Help() string {
	return `Shows samples, the run and its failures in a browser, until Ctrl-C. It prints an address with a token: only who has that can read or change anything. It works without a network, but for what the stack itself needs.

From another machine, forward the port: ssh -L 8080:127.0.0.1:8080 HOST, and there ops ui --addr 127.0.0.1:8080. With another --addr the token and everything shown travel unencrypted.

Examples:
  ops --stack local ui --open
  ops --stack dev ui --read-only --dataset v2`
}

func (c *UICmd) Run(ctx context.Context, o *Output, t *target.Target) error {
	s, on, err := newWeb(ctx, o, t, c.Addr, c.ReadOnly)
	if err != nil {
		return err
	}
	defer s.Close()
	o.Changing(t)
	if err := o.PrintLine(map[string]string{"address": s.Address()}, "%s", s.Address()); err != nil {
		return err
	}
	if here := s.AddressHere(); here != s.Address() {
		o.Say("on this machine: %s", here)
	}
	if c.Open {
		openBrowser(o, s.AddressOnce())
	}
	return s.Serve(ctx, on)
}

func openBrowser(o *Output, address string) {
	program := "xdg-open"
	if runtime.GOOS == "darwin" {
		program = "open"
	}
	cmd := exec.Command(program, address)
	if err := cmd.Start(); err != nil {
		o.Say("note: no browser can be opened (%v): open the address yourself", err)
		return
	}
	go func() { _ = cmd.Wait() }()
}

func newWeb(ctx context.Context, o *Output, t *target.Target, addr string, readOnly bool) (*web.Server, net.Listener,
	error) {
	q, err := t.Queue(ctx)
	if err != nil {
		return nil, nil, err
	}
	st, err := t.Store(ctx)
	if err != nil {
		return nil, nil, err
	}
	on, err := web.Listen(addr)
	if err != nil {
		return nil, nil, ui.WithHint(err, "--addr 127.0.0.1:0, which takes a free port")
	}
	s, err := web.New(web.Config{Target: t, Flags: o.Flags, Store: st, Queue: q, ReadOnly: readOnly, Say: o.Say,
		Paused: func(ctx context.Context) (bool, error) {
			if t.WithoutLambda() { // which cannot be paused
				return false, nil
			}
			l, err := t.Lambda(ctx)
			if err != nil {
				return false, err
			}
			state, err := t.MappingState(ctx, l)
			return state == target.MappingDisabled, err
		},
		Switch: func(ctx context.Context, on bool) error {
			l, err := t.Lambda(ctx)
			if err != nil {
				return err
			}
			_, err = t.Switch(ctx, l, on, o.Say)
			return err
		}}, on.Addr())
	return s, on, err
}

// serveBeside serves the web application of the local stack in the process that runs it, and returns its address, or
// why there is none: the stack works without it. Call stop before the stack ends.
func serveBeside(ctx context.Context, o *Output, t *target.Target) (address string, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	s, on, err := newWeb(ctx, o, t, "127.0.0.1:0", false)
	if err != nil {
		return fmt.Sprintf("does not run: %v; try ops --stack local ui", err), cancel
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx, on); err != nil {
			o.Say("note: the ui has ended: %v; try ops --stack local ui", err)
		}
	}()
	return s.Address(), func() {
		cancel()
		<-done
		s.Close()
	}
}
