package s3server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3api"
	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3response"
)

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
		auth.NewIAMServiceSingle(account), nil, nil, nil, nil,
		s3api.WithQuiet(), s3api.WithKeepAlive(), s3api.WithMpMaxParts(maxParts),
		s3api.WithConcurrencyLimiter(maxConnections, maxRequests),
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

// atomicPuts makes conditional puts atomic. The backend checks the condition first and
// writes later, so two puts could both satisfy it; and a read may return old bytes with the
// ETag of the new ones.
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

// hasAttributes reports whether the file system of a folder keeps extended
// attributes, by writing one.
func hasAttributes(dir string) bool {
	probe, err := os.MkdirTemp(dir, ".probe-")
	if err != nil {
		return false
	}
	defer os.Remove(probe)
	x := meta.XattrMeta{}
	return x.Test(probe) == nil && x.StoreAttribute(nil, probe, "", "probe", []byte("1")) == nil
}

// ownGroup keeps a terminal's Ctrl-C from the gateway: it must outlive the
// workers that are stopped by it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
