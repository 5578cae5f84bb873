package catalogue

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// webServer serves bare repositories as git's own program does. Through before it
// can be made older or slower.
func webServer(t *testing.T, dir string, before func(w http.ResponseWriter, r *http.Request) (done bool)) string {
	t.Helper()
	core := user(t, ".", "--exec-path")
	backend := filepath.Join(core, "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		t.Skipf("this git has no git-http-backend: %v", err)
	}
	handler := &cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1"},
		Stderr: io.Discard}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before != nil && before(w, r) {
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// TestServers fetches a commit that is no branch's from servers of several kinds.
func TestServers(t *testing.T) {
	o := newOrigin(t)
	pin := o.commit(map[string]string{program: "pin"})
	o.commit(map[string]string{program: "newer"})
	user(t, o.bare, "update-server-info")
	gone := strings.Repeat("0", 39) + "1"
	dumb := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(o.bare))))
	t.Cleanup(dumb.Close)
	old := func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Git-Protocol") // it does not know version 2 of the protocol, which allows any commit
		return false
	}
	private := func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("WWW-Authenticate", `Basic realm="GitHub"`)
		http.Error(w, "Repository not found.", http.StatusUnauthorized)
		return true
	}
	for _, test := range []struct{ name, url, commit, want string }{
		{"new", webServer(t, filepath.Dir(o.bare), nil), pin, ""},
		{"new, missing commit", webServer(t, filepath.Dir(o.bare), nil), gone, "in no branch or tag any more"},
		{"old", webServer(t, filepath.Dir(o.bare), old), pin, ""},
		{"old, missing commit", webServer(t, filepath.Dir(o.bare), old), gone, "in no branch or tag any more"},
		{"plain files", dumb.URL, pin, ""},
		{"private or vanished", webServer(t, t.TempDir(), private), pin, "is not there, or not public"},
		{"not found", webServer(t, t.TempDir(), nil), pin, "is not there, or not public"},
		{"down", "http://127.0.0.1:1", pin, "git fetch: unable to access"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := catalogueOf(t, map[string][2]string{"a": {test.url + "/x.git", test.commit}})
			r := synced(t, &Syncer{Root: root}, "a")
			clean(t, root)
			if test.want != "" {
				if r.State != Failed || !strings.Contains(r.Reason, test.want) {
					t.Errorf("got %+v, want ...%s...", r, test.want)
				}
				t.Log(r.Reason)
				return
			}
			if r.State != Fetched || read(t, filepath.Join(root, "a", program)) != "pin" ||
				user(t, filepath.Join(root, "a"), "rev-parse", "HEAD") != pin {
				t.Errorf("got %+v", r)
			}
			if refs := user(t, filepath.Join(root, "a"), "for-each-ref"); strings.Contains(refs, "\n") {
				t.Errorf("refs %s", refs)
			}
		})
	}
}

// stalled serves the repositories of dir, but never ends the answer with the pack.
// The channel is closed when it is asked for it.
func stalled(t *testing.T, dir string) (url string, asked chan struct{}) {
	asked = make(chan struct{})
	release := make(chan struct{})
	var once sync.Once
	url = webServer(t, dir, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		body := new(bytes.Buffer)
		_, _ = body.ReadFrom(r.Body)
		if !strings.Contains(body.String(), "want ") {
			r.Body = http.NoBody
			r.Body = readCloser{body}
			return false
		}
		once.Do(func() { close(asked) })
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return true
	})
	t.Cleanup(func() { close(release) })
	return url, asked
}

type readCloser struct{ *bytes.Buffer }

func (readCloser) Close() error { return nil }

func TestInterrupted(t *testing.T) {
	o := newOrigin(t)
	commit := o.commit(map[string]string{program: "x"})
	for _, how := range []string{"Ctrl-C", "kill -9"} {
		t.Run(how, func(t *testing.T) {
			url, asked := stalled(t, filepath.Dir(o.bare))
			root := catalogueOf(t, map[string][2]string{"a": {url + "/x.git", commit}})
			if how == "Ctrl-C" {
				ctx, cancel := context.WithCancel(t.Context())
				go func() { <-asked; cancel() }()
				results, err := (&Syncer{Root: root}).Sync(ctx, []string{"a"}, nil)
				if !errors.Is(err, context.Canceled) || results[0].State != Unmet {
					t.Errorf("got %+v, %v", results, err)
				}
				clean(t, root)
			} else {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), rootVariable+"="+root)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				<-asked
				if _, err := (&Syncer{Root: root}).Sync(t.Context(), []string{"a"}, nil); err == nil ||
					!strings.Contains(err.Error(), "another sync is at work") {
					t.Errorf("beside another: %v", err)
				}
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait()
				if left, _ := filepath.Glob(filepath.Join(root, work, "a-*")); len(left) != 1 {
					t.Errorf("killed too late: %v", left)
				}
			}
			if _, err := os.Lstat(filepath.Join(root, "a")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("something is there: %v", err)
			}
			if found, err := generator.Discover(root); err != nil || len(found) != 0 {
				t.Errorf("found %+v, %v", found, err)
			}
			text := strings.Replace(read(t, filepath.Join(root, generator.Catalogue)), url+"/x.git", o.bare, 1)
			write(t, filepath.Join(root, generator.Catalogue), text)
			if r := synced(t, &Syncer{Root: root}, "a"); r.State != Fetched {
				t.Errorf("again: %+v", r)
			}
			clean(t, root)
		})
	}
}
