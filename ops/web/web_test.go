package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/infra/stack"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/local/s3server/s3test"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/web"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

func TestMain(m *testing.M) {
	s3server.Main()
	os.Exit(m.Run())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bucket is one of the local stack's server, whose requests are counted.
type bucket struct {
	*s3test.Bucket
	store    *store.Store
	requests atomic.Int64
	client   *http.Client
}

// Do makes the bucket an HTTP client of the SDK.
func (b *bucket) Do(r *http.Request) (*http.Response, error) {
	b.requests.Add(1)
	return b.client.Do(r)
}

func newBucket(t testing.TB) *bucket {
	t.Helper()
	b := &bucket{Bucket: s3test.New(t), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}}
	b.store = b.Store(b)
	return b
}

// plain has the files that every sample must have.
func plain(i int) map[string]string {
	return map[string]string{"first_frame.png": s3test.Picture(i), "final_frame.png": s3test.Picture(1000 + i),
		"prompt.txt": fmt.Sprintf("Solve %d.\n", i), "ground_truth.mp4": strings.Repeat(fmt.Sprintf("video %d;", i), 50+i),
		"metadata.json": fmt.Sprintf(`{"difficulty": %d, "name": "n%d"}`, i%5, i)}
}

// videos have a codec, and lengths that differ.
func videos(codec string) func(int, string) sample.Media {
	return func(i int, file string) (m sample.Media) {
		if sample.IsVideo(file) {
			m = sample.Media{Width: 64, Height: 48, Frames: 17, FPS: 16, Seconds: 1.0625 + float64(i%3), Codec: codec,
				PixelFormat: "yuv420p"}
		}
		return m
	}
}

// of sets what the receipts of a run have.
func of(run string) func(*store.Receipt) {
	return func(r *store.Receipt) {
		r.RunID, r.WallSeconds = run, float64(1+r.ChunkStart%7)
		r.Command = append(r.Command, "--seed", "7")
	}
}

func maze(samples int) s3test.Generator {
	return s3test.Generator{Name: "maze-generator", Domain: "maze", Samples: samples, Chunk: 10, Files: plain,
		Commit: strings.Repeat("c", 40), Media: videos("h264"), Receipt: of("run-1")}
}

func (b *bucket) commit(t testing.TB, name task.Dataset, format task.Format, g s3test.Generator, of ...task.Range) {
	t.Helper()
	s3test.Commit(t, b.store.In(name), format, &g, of...)
}

// site is a server and a viewer who has entered with the token.
type site struct {
	*web.Server
	t      testing.TB
	base   string
	token  string
	client *http.Client
}

// serve serves a bucket as `ops ui` does.
func (b *bucket) serve(t testing.TB, change ...func(*web.Config)) *site {
	t.Helper()
	return b.serveOn(t, "127.0.0.1:0", change...)
}

func (b *bucket) serveOn(t testing.TB, address string, change ...func(*web.Config)) *site {
	t.Helper()
	on, err := web.Listen(address)
	check(t, err)
	c := web.Config{Target: &target.Target{Name: stack.Local, Dataset: "v1"}, Flags: &target.Flags{LocalDir: t.TempDir()},
		Store: b.store.In("v1"), Say: t.Logf, Switch: func(context.Context, bool) error { return nil },
		Paused: func(context.Context) (bool, error) { return false, nil }}
	for _, do := range change {
		do(&c)
	}
	s := &site{t: t}
	s.Server, err = web.New(c, on.Addr())
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, on) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	s.base, s.token, _ = strings.Cut(s.Address(), "/?token=")
	s.client = s.viewer()
	return s
}

// cookie is what a browser sends once it has entered.
func (s *site) cookie() string {
	return "ops-ui-" + s.base[strings.LastIndex(s.base, ":")+1:] + "=" + s.token
}

// viewer is a client that has entered.
func (s *site) viewer() *http.Client {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	check(s.t, err)
	c := &http.Client{Jar: jar}
	answer, err := c.Get(s.base + "/static/app.js?token=" + s.token)
	check(s.t, err)
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		s.t.Fatalf("entering with the token is answered %s", answer.Status)
	}
	return c
}

// reply is an answer that was read.
type reply struct {
	*http.Response
	text string
}

// get asks as a browser that shows what is answered; headers are pairs.
func (s *site) get(path string, headers ...string) reply {
	s.t.Helper()
	return s.do(s.client, http.MethodGet, path, append([]string{"Accept", "text/html"}, headers...)...)
}

func (s *site) do(c *http.Client, method, path string, headers ...string) reply {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.base+path, http.NoBody)
	check(s.t, err)
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		} else {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	answer, err := c.Do(r)
	check(s.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	check(s.t, err)
	return reply{answer, string(text)}
}

// read asks for data.
func read[T any](s *site, path string) (data T) {
	s.t.Helper()
	a := s.do(s.client, http.MethodGet, path)
	if a.StatusCode != http.StatusOK {
		s.t.Fatalf("%s is answered %s: %s", path, a.Status, a.text)
	}
	check(s.t, json.Unmarshal([]byte(a.text), &data))
	return data
}

// want fails unless an answer has a status and texts.
func (a reply) want(t testing.TB, status int, texts ...string) {
	t.Helper()
	if a.StatusCode != status {
		t.Errorf("%s %s is answered %s, want %d: %.300s", a.Request.Method, a.Request.URL, a.Status, status, a.text)
	}
	for _, text := range texts {
		if !strings.Contains(a.text, text) {
			t.Errorf("%s %s is answered without %q: %.2000s", a.Request.Method, a.Request.URL, text, a.text)
		}
	}
}
