// Package s3server is the S3 endpoint of the local stack: a versitygw gateway over a plain folder, in a process of its
// own. Objects are files that a person can open; conditional puts are atomic and checksums are verified.
//
// The gateway has a process of its own because its posix backend changes the
// working directory and allows one instance per process.
package s3server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3api"
	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3response"
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

const startTimeout = 30 * time.Second // how long the gateway has to begin listening; it takes 0.1 s on an idle machine

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
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // no Ctrl-C: it must outlive the workers that are stopped by it
	alive, err := cmd.StdinPipe()                         // the gateway ends when it is closed
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

// Close ends the gateway and waits for it. A request under way is cut off; what it was writing stays invisible.
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

// Limits of the gateway: the defaults of its own command line.
const (
	maxConnections = 250_000
	maxRequests    = 100_000
	copyThreshold  = 5 << 30
	maxParts       = 10_000
)

// Main runs the gateway if Start has started this process as one, and does not return
// then. Every program that calls Start must call it first.
func Main() {
	order, ok := os.LookupEnv(childVariable)
	if !ok {
		return
	}
	var c Config
	err := json.Unmarshal([]byte(order), &c)
	if err == nil {
		err = c.serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "S3 endpoint:", err)
	}
	os.Exit(1)
}

func (c Config) serve() error {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
		os.Exit(0)
	}()
	if err := c.dropUnfinished(); err != nil {
		return err
	}
	files, err := c.backend()
	if err != nil {
		return err
	}
	storage := &atomicPuts{Backend: files}
	account := auth.Account{Access: c.AccessKey, Secret: c.SecretKey, Role: auth.RoleAdmin}
	server, err := s3api.New(storage, middlewares.RootUserConfig{Access: c.AccessKey, Secret: c.SecretKey}, c.Region,
		auth.NewIAMServiceSingle(account), nil, nil, nil, nil, s3api.WithQuiet(), s3api.WithKeepAlive(),
		s3api.WithMpMaxParts(maxParts), s3api.WithConcurrencyLimiter(maxConnections, maxRequests),
		s3api.WithOnListen(func() {
			ready := os.NewFile(readyDescriptor, "ready")
			_, _ = ready.Write([]byte{1})
			_ = ready.Close()
		}))
	if err != nil {
		return err
	}
	return server.ServeMultiPort([]string{c.Address})
}

// atomicPuts makes conditional puts atomic. The backend checks the condition first and writes later, so two puts could
// both satisfy it; and a read may return old bytes with the ETag of the new ones.
type atomicPuts struct {
	backend.Backend
	locks [256]sync.RWMutex // by a hash of the key
}

func (s *atomicPuts) lock(key *string) *sync.RWMutex {
	h := fnv.New32a()
	if key != nil {
		_, _ = io.WriteString(h, *key)
	}
	return &s.locks[h.Sum32()%uint32(len(s.locks))]
}

// PutObject is the backend's.
func (s *atomicPuts) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	if in.IfMatch != nil || in.IfNoneMatch != nil {
		lock := s.lock(in.Key)
		lock.Lock()
		defer lock.Unlock()
	}
	return s.Backend.PutObject(ctx, in)
}

// GetObject is the backend's. The body is of one object, however long it is read.
func (s *atomicPuts) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	lock := s.lock(in.Key)
	lock.RLock()
	defer lock.RUnlock()
	return s.Backend.GetObject(ctx, in)
}

// DeleteObject is the backend's.
func (s *atomicPuts) DeleteObject(ctx context.Context, in *s3.DeleteObjectInput) (*s3.DeleteObjectOutput, error) {
	lock := s.lock(in.Key)
	lock.Lock()
	defer lock.Unlock()
	return s.Backend.DeleteObject(ctx, in)
}

// dropUnfinished removes the temporary files of a gateway that was killed. Parts of
// uploads are kept: an upload may continue.
func (c Config) dropUnfinished() error {
	dir := filepath.Join(c.Dir, c.Bucket, posix.MetaTmpDir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c Config) backend() (backend.Backend, error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, err
	}
	side, err := filepath.Abs(c.Meta)
	if err != nil {
		return nil, err
	}
	options := posix.PosixOpts{NewDirPerm: 0o755, CopyObjectThreshold: copyThreshold, ValidateBucketNames: true}
	var metadata meta.MetadataStorer = meta.XattrMeta{}
	if c.Sidecar || !hasAttributes(dir) {
		metadata, err = meta.NewSideCar(side)
		if err != nil {
			return nil, err
		}
		options.SideCarDir = side
	}
	return posix.New(dir, metadata, options)
}

// hasAttributes reports whether the file system of a folder keeps extended attributes, by writing one.
func hasAttributes(dir string) bool {
	probe, err := os.MkdirTemp(dir, ".probe-")
	if err != nil {
		return false
	}
	defer os.Remove(probe)
	x := meta.XattrMeta{}
	return x.Test(probe) == nil && x.StoreAttribute(nil, probe, "", "probe", []byte("1")) == nil
}
