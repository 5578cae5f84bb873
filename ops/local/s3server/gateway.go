package s3server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3api"
	"github.com/versity/versitygw/s3api/middlewares"
)

// Limits that the gateway wants to be told; those of its own command line.
const (
	maxConnections = 250_000
	maxRequests    = 100_000
	copyThreshold  = 5 << 30
	maxParts       = 10_000
)

// Main turns this process into the gateway if Start has started it as one, and
// does not return then. Every program that calls Start must call it first.
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
	storage, err := c.backend()
	if err != nil {
		return err
	}
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

// dropUnfinished removes what a gateway that was killed had been writing: nobody
// else looks for it. Parts of uploads are kept, for these may go on.
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

// hasAttributes reports whether the filesystem of a folder keeps extended
// attributes. Only trying tells.
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
