package worker

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sandbox"
)

// Examine is the payload of a direct invocation that asks a worker for its Examination.
const Examine = `{"examine":true}`

// Examination is what a worker's machine is like, and what the sandbox of its generators holds there.
type Examination struct {
	Kernel   string `json:"kernel"`
	Machine  string `json:"machine"` // its instruction set, as the kernel names it
	CPUs     int    `json:"cpus"`
	MemoryMB int64  `json:"memory_mb"`
	User     int    `json:"user"`     // its id
	Landlock int    `json:"landlock"` // version of the kernel's interface; 0 if it has none
	// seconds that the bucket's clock is ahead, to a second; absent if the bucket did not answer
	ClockAhead *float64    `json:"clock_ahead,omitempty"`
	Image      string      `json:"image,omitempty"`
	Generators []Installed `json:"generators"`        // in the image
	Problem    string      `json:"problem,omitempty"` // why Sees is empty, or no generators are known
	Worker     int         `json:"worker"`            // id of the process
	Sees       *WhatIsSeen `json:"sees,omitempty"`
}

// Installed is a generator that is in the image.
type Installed struct {
	Name    string `json:"name"`
	Commit  string `json:"commit,omitempty"`  // "" if it is unknown
	Lock    string `json:"lock,omitempty"`    // hash of its lock, "" without one
	Problem string `json:"problem,omitempty"` // why it cannot run
}

// WhatIsSeen is what a generator reaches from its sandbox.
type WhatIsSeen struct {
	Proc     map[string][]int `json:"proc"`     // file in /proc -> ids of the other processes whose file it can read
	Writable []string         `json:"writable"` // of some folders that are not its own
	Network  bool             `json:"network"`  // it has the worker's
}

//go:embed examine.py
var examineProgram []byte

// examine answers what its machine is like. It makes no sample and changes nothing in the bucket.
func (h *Handler) examine(ctx context.Context) *Examination {
	x := &Examination{CPUs: h.config.CPUs, MemoryMB: h.config.Limits.Memory >> 20, User: os.Getuid(),
		Worker: os.Getpid(), Landlock: sandbox.Landlock(), Image: h.config.Image}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		x.Kernel = unix.ByteSliceToString(name.Release[:])
		x.Machine = unix.ByteSliceToString(name.Machine[:])
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	asking, enough := context.WithTimeout(ctx, 5*time.Second) // it tries until then
	if ahead, ok := h.store.Ahead(asking); ok {
		seconds := ahead.Seconds()
		x.ClockAhead = &seconds
	}
	enough()
	python := ""
	index, err := generator.LoadIndex(h.config.Generators)
	if err == nil {
		for _, g := range index.Generators {
			x.Generators = append(x.Generators, Installed{g.Name, g.Commit, g.Lock, g.Problem})
			if g.Problem == "" {
				python = cmp.Or(python, g.Python)
			}
		}
		x.Sees, err = h.see(ctx, python)
	}
	if err != nil {
		x.Problem = err.Error()
	}
	return x
}

// see runs a program in the sandbox of a generator, with its Python, and returns what it found.
func (h *Handler) see(ctx context.Context, python string) (*WhatIsSeen, error) {
	if python == "" { // no generator is ready
		var err error
		if python, err = exec.LookPath("python3"); err != nil {
			return nil, err
		}
	}
	scratch, err := h.scratch.Folder()
	if err != nil {
		return nil, err
	}
	defer h.scratch.Remove(scratch, h.log)
	source := filepath.Join(scratch, "source", "examine")
	run := filepath.Join(scratch, "run")
	const entry = "examine.py"
	if err := errors.Join(os.MkdirAll(source, 0o700), os.Mkdir(run, 0o700),
		os.WriteFile(filepath.Join(source, entry), examineProgram, 0o600)); err != nil {
		return nil, err
	}
	own, err := net.Listen("tcp", "127.0.0.1:0") // who reaches it has the worker's network
	if err != nil {
		return nil, err
	}
	defer own.Close()
	result, err := h.generate(ctx, generator.Request{
		Generator: &generator.Generator{Name: "examine", Dir: source, Entry: entry, Python: python,
			Flags: generator.Flags{Output: "--output"}},
		Samples: 1, Scratch: run, Apart: h.config.OwnMachine, Guard: h.guard,
		Env: []string{"EXAMINED_WORKER=" + strconv.Itoa(os.Getpid()),
			"EXAMINED_PORT=" + strconv.Itoa(own.Addr().(*net.TCPAddr).Port)},
	})
	if err != nil {
		return nil, fmt.Errorf("what a generator sees: %w", err)
	}
	text, err := generator.ReadLeft(result.Output, "answer.json", 1<<20)
	if err != nil {
		return nil, err
	}
	seen := &WhatIsSeen{}
	return seen, json.Unmarshal(text, seen)
}
