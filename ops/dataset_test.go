package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Deleting a dataset is killed, as by kill -9, before and after each request that
// deletes something. The dataset is listed until all of it is gone, the same command
// goes on, and another dataset keeps what it has.
func TestDatasetDeleteKilled(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	endpoint := slices.IndexFunc(c.env, func(pair string) bool { return strings.HasPrefix(pair, "AWS_ENDPOINT_URL_S3=") })
	behind, err := url.Parse(strings.TrimPrefix(c.env[endpoint], "AWS_ENDPOINT_URL_S3="))
	must(t, err)
	var before, after atomic.Pointer[func()]
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(behind); r.Out.Host = r.In.Host }}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		deletes := r.Method == http.MethodDelete || r.Method == http.MethodPost
		if kill := before.Load(); deletes && kill != nil {
			(*kill)()
			return
		}
		if kill := after.Load(); deletes && kill != nil {
			forward.ServeHTTP(httptest.NewRecorder(), r)
			(*kill)()
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	c.env[endpoint] = "AWS_ENDPOINT_URL_S3=" + proxy.URL
	dir := t.TempDir()
	generators := t.TempDir()
	makeGenerators(t, generators, "maze-task")
	run := func(args ...string) string {
		t.Helper()
		cmd := c.ops(t, dir, append([]string{"--generators-dir", generators}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return string(out)
	}
	for _, name := range []string{"v1", "trial"} {
		run("submit", "--generator", "maze-task", "--samples", "20", "--dataset", name)
	}
	must(t, c.commit(t.Context(), "maze-task", "r", "", "", task.Range{End: 20}, 42, 20))
	other := store.Receipt{Dataset: "trial", Generator: "maze-task", ChunkSize: 20, End: 20}
	for i := range 20 {
		other.Samples = append(other.Samples, store.ReceiptSample{ID: task.SampleID("d", i), Index: i})
	}
	must(t, commitReceipt(t.Context(), c.store.In("trial"), other))
	kept := c.keys(t, "trial")
	// v1 has receipts, data, a run and the manifest: four requests delete something.
	for n := range 8 {
		cmd := c.ops(t, dir, "dataset", "delete", "v1", "--yes")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		started := make(chan struct{})
		kill := func() {
			<-started
			_ = cmd.Process.Kill()
		}
		when, where := "before", &before
		if n%2 == 1 {
			when, where = "after", &after
		}
		where.Store(&kill)
		must(t, cmd.Start())
		close(started)
		if err := cmd.Wait(); err == nil {
			t.Fatalf("killed %s request %d, it ended well: %s", when, n/2+1, out.String())
		}
		where.Store(nil)
		if listed, all := strings.Contains(run("dataset", "list"), "v1"), c.keys(t, "v1"); listed != (len(all) > 0) {
			t.Errorf("killed %s request %d: v1 is listed: %t, and %d objects are left", when, n/2+1, listed, len(all))
		}
	}
	if left := c.keys(t, "v1"); left != nil {
		t.Errorf("left: %v", left)
	}
	if now := c.keys(t, "trial"); !slices.Equal(now, kept) || len(kept) != 3 {
		t.Errorf("the other dataset has %v, it had %v", now, kept)
	}
	for _, name := range []string{"v1", "trial"} { // a new one may have another seed
		if out := run("submit", "--generator", "maze-task", "--samples", "20", "--dataset", name,
			"--dry-run"); strings.Contains(out, "committed already") == (name == "v1") {
			t.Errorf("%s: %s", name, out)
		}
	}
	run("submit", "--generator", "maze-task", "--samples", "20", "--seed", "7")
}

// keys are those of a dataset's objects, its manifest included.
func (c *cloud) keys(t *testing.T, name task.Dataset) (list []string) {
	t.Helper()
	for o, err := range c.store.List(t.Context(), "", "") {
		must(t, err)
		if o.Key == name.ManifestKey() || strings.Contains(o.Key, fmt.Sprintf("/%s/", name)) {
			list = append(list, o.Key)
		}
	}
	return list
}
