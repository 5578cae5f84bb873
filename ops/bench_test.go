package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/monitor"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// far is a cloud behind a slow network whose requests are counted.
type far struct {
	*cloud
	requests atomic.Int64
}

func newFar(b *testing.B, delay time.Duration) *far {
	b.Helper()
	f := &far{cloud: newCloud(b)}
	f.intercept(func(string, *http.Request) int {
		f.requests.Add(1)
		time.Sleep(delay)
		return 0
	})
	for i, line := range f.env {
		endpoint, found := strings.CutPrefix(line, "AWS_ENDPOINT_URL_S3=")
		if !found {
			continue
		}
		target, err := url.Parse(endpoint)
		if err != nil {
			b.Fatal(err)
		}
		proxy := &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				r.Out.Host = r.In.Host // it is signed
			},
			Transport: &http.Transport{MaxIdleConnsPerHost: 100},
		}
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f.requests.Add(1)
			time.Sleep(delay)
			proxy.ServeHTTP(w, r)
		}))
		b.Cleanup(front.Close)
		f.env[i] = "AWS_ENDPOINT_URL_S3=" + front.URL
		f.store = store.New(s3.New(s3.Options{Region: "eu-west-1", BaseEndpoint: aws.String(front.URL),
			HTTPClient:  store.HTTPClient(nil),
			Credentials: credentials.NewStaticCredentialsProvider("key", "secret", "")}, store.ClientOptions), testBucket)
	}
	return f
}

// took is what a command took.
type took struct {
	wall     time.Duration
	memory   int64 // bytes, at its peak
	requests int64
}

// ops runs a command in a process of its own; it must end with a status.
func (f *far) ops(b *testing.B, dir string, status int, args ...string) took {
	b.Helper()
	before, began := f.requests.Load(), time.Now()
	cmd, said := f.process(b, dir, args...)
	ended, peak := make(chan bool), make(chan int64)
	go func() { peak <- peakMemory(cmd.Process.Pid, ended) }()
	err := cmd.Wait()
	close(ended)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != status {
		b.Fatalf("ops %v: %v: %s", args, err, said)
	}
	return took{wall: time.Since(began), requests: f.requests.Load() - before, memory: <-peak}
}

// peakMemory is the most memory that a process has had until it ended, in bytes; 0 where there is no /proc. What
// wait4 tells counts the process from before its exec, when it was a copy of this one.
func peakMemory(pid int, ended <-chan bool) (peak int64) {
	for {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if _, after, ok := strings.Cut(string(text), "VmHWM:"); ok {
			var kibibytes int64
			_, _ = fmt.Sscan(after, &kibibytes)
			peak = max(peak, kibibytes<<10)
		}
		select {
		case <-ended:
			return peak
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// rounds does something as often as -benchtime says (3x), or else three times unless
// that takes long, for go test ends after ten minutes; and reports medians,
// and of memory the most.
func rounds(b *testing.B, do func() took) {
	b.Helper()
	const enough, long = 3, 40 * time.Second
	var walls, requests []float64
	var peak int64
	for began := time.Now(); len(walls) < b.N || b.N == 1 && len(walls) < enough && time.Since(began) < long; {
		x := do()
		walls = append(walls, x.wall.Seconds())
		peak = max(peak, x.memory)
		requests = append(requests, float64(x.requests))
	}
	b.ReportMetric(median(walls), "s")
	b.ReportMetric(median(requests), "requests")
	if peak > 0 {
		b.ReportMetric(float64(peak)/1e6, "peak-MB")
	}
	b.ReportMetric(0, "ns/op")
}

func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// BenchmarkSubmit compares the whole command, with 5,000 tasks of 50 generators,
// with the bare sending of the same tasks ten at a time, one request after the
// other. Each request, to S3 too, takes 25 ms longer than on loopback.
func BenchmarkSubmit(b *testing.B) {
	const generators, tasks = 50, 5000
	f, dir := newFar(b, 25*time.Millisecond), b.TempDir()
	for n := range generators {
		makeGenerators(b, filepath.Join(dir, "generators"), fmt.Sprintf("g%02d-task", n))
	}
	var faster []float64
	n := 0
	rounds(b, func() took {
		id := fmt.Sprintf("run-%d", n)
		n++
		x := f.ops(b, dir, 0, "submit", "--all", "--samples", "10000", "--run", id)
		run, err := f.store.Run(b.Context(), id)
		must(b, err)
		began := time.Now()
		for list := range slices.Chunk(run.Plan(), 10) {
			must(b, f.queue.Send(b.Context(), list, func(int) error { return nil }))
		}
		faster = append(faster, float64(time.Since(began))/float64(x.wall))
		if waiting, _, _ := f.sqs.Counts(testTasks); waiting != 2*tasks*n {
			b.Fatalf("%d tasks are in the queue, want %d", waiting, 2*tasks*n)
		}
		return x
	})
	b.ReportMetric(median(faster), "times-faster")
}

// BenchmarkHalfMillion runs the commands that look at a dataset of 500,000 samples
// in 25,000 receipts, of which 100 are missing here and there: of one generator, or
// of fifty.
func BenchmarkHalfMillion(b *testing.B) {
	for _, generators := range []int{1, 50} {
		b.Run(fmt.Sprintf("generators=%d", generators), func(b *testing.B) {
			f, dir := newFar(b, 0), b.TempDir()
			run := task.Run{ID: "half-a-million", Created: time.Now().UTC(), Seed: 42, Samples: 500_000 / generators, Batch: 100,
				ChunkSize: 20, Format: task.Tar, Version: "1"}
			for n := range generators {
				name := fmt.Sprintf("g%02d-task", n)
				makeGenerators(b, filepath.Join(dir, "generators"), name)
				run.Generators = append(run.Generators, task.RunGenerator{Name: name})
			}
			must(b, f.store.PutRun(b.Context(), run))
			f.fill(b, run, 250, true)
			b.Run("verify", func(b *testing.B) {
				rounds(b, func() took { return f.ops(b, dir, ui.ExitProblem, "verify", "--run", run.ID) })
			})
			b.Run("inspect", func(b *testing.B) {
				rounds(b, func() took { return f.ops(b, dir, 0, "inspect") })
			})
			b.Run("monitor", func(b *testing.B) {
				rounds(b, func() took { return f.ops(b, dir, 0, "monitor", "--run", run.ID, "--json") })
			})
			b.Run("monitor-refresh", func(b *testing.B) {
				rounds(b, func() took {
					m := monitor.New(f.store, f.queue, run)
					m.CountCost(plan.DefaultWorker(), nil, true)
					_, err := m.Poll(b.Context())
					must(b, err)
					f.fill(b, run, 51*250, false) // of the hundred that were missing, two still are
					before, began := f.requests.Load(), time.Now()
					p, err := m.Poll(b.Context())
					must(b, err)
					if p.Expected-p.Committed != 2*run.ChunkSize {
						b.Fatalf("%d of %d are committed", p.Committed, p.Expected)
					}
					x := took{wall: time.Since(began), requests: f.requests.Load() - before}
					f.fill(b, run, 0, false)
					f.removeMissing(b, run, 250)
					return x
				})
			})
			b.Run("submit-missing", func(b *testing.B) {
				sent := 0
				rounds(b, func() took {
					x := f.ops(b, dir, 0, "--yes", "repair", "--run", run.ID)
					sent += 100
					if waiting, _, _ := f.sqs.Counts(testTasks); waiting != sent {
						b.Fatalf("%d tasks are in the queue, want %d", waiting, sent)
					}
					return x
				})
				must(b, f.queue.Purge(b.Context()))
			})
		})
	}
}

// chunks are the chunks of a run's generators, and whether each is one of those
// that are missing: every so manieth.
func chunks(run task.Run, every int, do func(name string, t task.Task, c task.Chunk, missing bool)) {
	n := 0
	for _, g := range run.Generators {
		for start := 0; start < run.Samples; start += run.ChunkSize {
			t := task.Task{Generator: g.Name, StartIndex: start, NumSamples: run.ChunkSize, Seed: run.Seed, Format: run.Format,
				ChunkSize: run.ChunkSize}
			do(g.Name, t, t.Chunks()[0], every > 0 && n%every == every/2)
			n++
		}
	}
}

// fill writes the receipts of a run, and shards of some bytes, into the bucket's
// folder, where they are not there yet, but for those that are to be missing. Old ones
// were written before, one after the other; others are written now.
func (f *far) fill(b *testing.B, run task.Run, every int, old bool) {
	b.Helper()
	const shard = "as many bytes as its receipt says"
	made := run.Created.Add(-time.Hour) // twenty a second, as from workers, and not all of them just now
	chunks(run, every, func(name string, t task.Task, c task.Chunk, missing bool) {
		r := store.Receipt{Generator: name, RunID: run.ID, RunSeed: run.Seed, ChunkSize: run.ChunkSize,
			ChunkStart: c.Cell.Start, Seed: c.Seed(t, 0),
			Command: []string{"python", "examples/generate.py", "--num-samples", "20", "--seed", fmt.Sprint(c.Seed(t, 0)),
				"--output", "output"},
			Start: c.Keep.Start, End: c.Keep.End, Epoch: 1, Format: task.Tar, Domain: "maze", CPUSeconds: 3, WallSeconds: 3,
			PeakRSSBytes: 300 << 20,
			Shard: &store.Object{Key: task.DefaultDataset.ShardKey(name, c, 1), Size: int64(len(shard)),
				SHA256: strings.Repeat("0", 64)}}
		path := filepath.Join(f.objects, filepath.FromSlash(task.DefaultDataset.CellKey(name, c.Cell)))
		if _, err := os.Stat(path); err == nil || missing {
			return
		}
		for i := r.Start; i < r.End; i++ {
			s := store.ReceiptSample{ID: task.SampleID("maze", i), Index: i, Fingerprint: fmt.Sprintf("%s %d", name, i)}
			for _, file := range []string{"final_frame.png", "first_frame.png", "ground_truth.mp4", "metadata.json",
				"prompt.txt", "rubric.txt"} {
				s.Files = append(s.Files, store.ReceiptFile{Name: file, Size: int64(1000 + i%7), SHA256: fmt.Sprintf("%064x", i)})
			}
			r.Samples = append(r.Samples, s)
		}
		text, err := (&store.Cell{Version: 1, Generator: name, Start: c.Cell.Start, End: c.Cell.End, Epoch: 1,
			Receipts: []store.Receipt{r}}).Encode()
		must(b, err)
		object := filepath.Join(f.objects, filepath.FromSlash(r.Shard.Key))
		must(b, errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.MkdirAll(filepath.Dir(object), 0o755),
			os.WriteFile(path, text, 0o644), os.WriteFile(object, []byte(shard), 0o644)))
		if made = made.Add(50 * time.Millisecond); old {
			must(b, os.Chtimes(path, made, made))
		}
	})
}

// removeMissing removes the cells that should be missing.
func (f *far) removeMissing(b *testing.B, run task.Run, every int) {
	b.Helper()
	chunks(run, every, func(name string, _ task.Task, c task.Chunk, missing bool) {
		if missing {
			must(b, errors.Join(os.Remove(filepath.Join(f.objects,
				filepath.FromSlash(task.DefaultDataset.CellKey(name, c.Cell)))),
				os.Remove(filepath.Join(f.objects, filepath.FromSlash(task.DefaultDataset.ShardKey(name, c, 1))))))
		}
	})
}
