// Package s3server is the S3 endpoint of the local stack: a versitygw gateway
// over a plain folder, in a process of its own. Objects are files that a person
// can open; conditional puts are atomic and checksums are verified.
//
// The gateway has a process of its own because its posix backend changes the
// working directory and allows one instance per process.
package s3server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Config configures the gateway.
type Config struct {
	Dir string // objects are files below Dir/<bucket>/<key>
	// folder for metadata where the filesystem has no extended attributes; its path must not begin with Dir
	Meta      string
	Address   string   // loopback host and port; port 0 takes a free one
	Bucket    string   // made if it is not there
	Region    string   // that clients sign for
	AccessKey string   // the one account
	SecretKey string   // its secret
	Sidecar   bool     // keep metadata in Meta even where extended attributes work
	Inherit   *os.File `json:"-"` // the gateway keeps it open while it lives, a lock for example; may be nil
}

// childVariable makes a process the gateway; its value is the Config as JSON.
const childVariable = "VM_DATASET_S3"

// Descriptors that the gateway inherits.
const readyDescriptor = 3

// Server is a running gateway.
type Server struct {
	address string
	cmd     *exec.Cmd
	alive   io.Closer
	done    chan struct{}
	err     error
}

// startTimeout is how long the gateway has to begin listening; it takes 0.1 s on
// an idle machine.
const startTimeout = 30 * time.Second

// Start starts the gateway and returns when it listens; it fails after 30 s. The
// gateway ends with this process, however that ends. Its errors go to log.
func Start(ctx context.Context, c Config, log io.Writer) (*Server, error) {
	tries := 1
	if strings.HasSuffix(c.Address, ":0") {
		tries = 5 // another program may take a free port before the gateway listens on it
	}
	for try := 1; ; try++ {
		s, err := launch(ctx, c, log)
		if err == nil || try == tries || ctx.Err() != nil {
			return s, err
		}
	}
}

func launch(ctx context.Context, c Config, log io.Writer) (*Server, error) {
	for _, dir := range []string{filepath.Join(c.Dir, c.Bucket), c.Meta} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("start S3 endpoint: %w", err)
		}
	}
	address, err := freeAddress(c.Address)
	if err != nil {
		return nil, fmt.Errorf("start S3 endpoint: %w", err)
	}
	c.Address = address
	order, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	readyRead, readyWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer readyRead.Close()
	cmd := exec.Command(self)
	cmd.Env = []string{childVariable + "=" + string(order)} // none of ours: it may hold credentials
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{readyWrite}
	if c.Inherit != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, c.Inherit)
	}
	ownGroup(cmd)
	alive, err := cmd.StdinPipe() // the gateway ends when it is closed
	if err != nil {
		readyWrite.Close()
		return nil, err
	}
	err = cmd.Start()
	readyWrite.Close()
	if err != nil {
		return nil, fmt.Errorf("start S3 endpoint: %w", err)
	}
	s := &Server{address: address, cmd: cmd, alive: alive, done: make(chan struct{})}
	go func() {
		s.err = cmd.Wait()
		close(s.done)
	}()
	if err := readyRead.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if _, err := io.ReadFull(readyRead, make([]byte, 1)); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("start S3 endpoint on %s: is there another program on the port? %w", address, s.Err())
	}
	return s, ctx.Err()
}

// freeAddress replaces port 0 by one that is free just now.
func freeAddress(address string) (string, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	defer l.Close()
	if ip := l.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() { //nolint:forcetypeassert // it is a TCP listener
		return "", fmt.Errorf("%s is not a loopback address", address)
	}
	return l.Addr().String(), nil
}

// URL returns the endpoint's URL.
func (s *Server) URL() string { return "http://" + s.address }

// Done is closed when the gateway has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err returns why the gateway ended, after Done.
func (s *Server) Err() error {
	if s.err == nil {
		return errors.New("the S3 endpoint ended")
	}
	return fmt.Errorf("the S3 endpoint ended: %w", s.err)
}

// Close ends the gateway and waits for it. A request under way is cut off; what
// it was writing stays invisible.
func (s *Server) Close() error {
	_ = s.alive.Close()
	select {
	case <-s.done:
	case <-time.After(5 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	return nil
}
