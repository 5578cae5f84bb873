//go:build !linux

package sandbox

import (
	"os/exec"
	"syscall"
	"time"
)

// Harden does nothing here: there is no /proc to read a worker's environment from.
func Harden() error { return nil }

// Landlock returns 0: it is Linux's.
func Landlock() int { return 0 }

// Outside Linux a generator is confined by its process group and its working folder alone.
func confine(string, []string) error { return nil }

// Outside Linux nothing can be taken away from a generator.
func setApart(*syscall.SysProcAttr)         {}
func startApart(cmd *exec.Cmd) error        { return cmd.Start() }
func takeAway(...string) Apart              { return Apart{} }
func limitMemory(int, int64)                {}
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
func killOrphans()                          {}

// KillStrays does nothing here.
func KillStrays(string, time.Duration) {}
