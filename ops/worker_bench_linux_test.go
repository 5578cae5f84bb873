package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// BenchmarkWorker compares ops worker with the local stack's own workers, as many of each, on the same
// queue, bucket and tasks, by turns: how long tasks of a light generator take, from their submission to
// an empty queue, and how much CPU the stack's processes and those of ops worker. Each round has both, one
// after the other, so what else the machine does falls on both: the ratio is the median of the rounds'. The
// goal is at most 1.05 for both.
func BenchmarkWorker(b *testing.B) {
	const workers, tasks, batch, chunk = 2, 12, 20, 10
	dir := b.TempDir()
	source, err := os.ReadFile(filepath.Join("local", "testdata", "generate.py"))
	must(b, err)
	makeGenerators(b, filepath.Join(dir, "generators"), "good")
	must(b, os.WriteFile(filepath.Join(dir, "generators", "good", "examples", "generate.py"), source, 0o644))
	outputs, _ := startStack(b, dir)
	up := children(os.Getpid())
	client := sqs.New(sqs.Options{Region: outputs.Region, BaseEndpoint: &outputs.SQSEndpoint,
		Credentials: credentials.NewStaticCredentialsProvider(outputs.AccessKeyID, outputs.SecretAccessKey, "")})
	run := func(args ...string) {
		b.Helper()
		if _, said, err := ops(b, dir, append([]string{"--stack", "local", "--yes"}, args...)...); err != nil {
			b.Fatalf("ops %v: %v\n%s", args, err, said)
		}
	}
	round := 0
	measure := func(processes ...int) spent {
		round++
		before := cpuOf(processes...)
		dataset := fmt.Sprintf("d%d", round)
		began := time.Now()
		run("submit", "--all", "--samples", fmt.Sprint(tasks*batch), "--batch", fmt.Sprint(batch), "--chunk", fmt.Sprint(chunk),
			"--dataset", dataset)
		for {
			out, err := client.GetQueueAttributes(b.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &outputs.QueueURL,
				AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll}})
			must(b, err)
			all := 0
			for name, value := range out.Attributes {
				n := 0
				if strings.HasPrefix(name, "ApproximateNumberOfMessages") {
					_, _ = fmt.Sscan(value, &n)
				}
				all += n
			}
			if all == 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		took := spent{time.Since(began).Seconds(), cpuOf(processes...) - before}
		run("verify", "--dataset", dataset)
		return took
	}
	stack := func() spent { return measure(up...) }
	elsewhere := func() spent {
		run("pause")
		defer run("resume")
		cmd := exec.CommandContext(b.Context(), "ops", "--stack", "local", "worker", "--workers", fmt.Sprint(workers))
		cmd.Dir = dir
		said, err := cmd.StderrPipe()
		must(b, err)
		must(b, cmd.Start())
		lines := bufio.NewScanner(said)
		for lines.Scan() && !strings.Contains(lines.Text(), "at work") {
		}
		go func() { _, _ = io.Copy(io.Discard, said) }()
		took := measure(append(up, cmd.Process.Pid)...)
		must(b, cmd.Process.Signal(syscall.SIGTERM))
		must(b, cmd.Wait())
		return took
	}
	measure()                     // environments, caches
	var wall, cpu, took []float64 // the ratios of the rounds, and the seconds of ops worker
	for n := 0; n < b.N || b.N == 1 && n < 7; n++ {
		var of [2]spent
		steps := []func(){func() { of[0] = stack() }, func() { of[1] = elsewhere() }}
		for k := range steps {
			steps[(n+k)%len(steps)]()
		}
		wall, cpu = append(wall, of[1].wall/of[0].wall), append(cpu, of[1].cpu/of[0].cpu)
		took = append(took, of[1].wall)
		b.Logf("round %d: the local stack %.2f s, %.2f s of CPU; ops worker %.2f s, %.2f s", n, of[0].wall, of[0].cpu,
			of[1].wall, of[1].cpu)
	}
	b.ReportMetric(median(wall), "wall-worker/stack")
	b.ReportMetric(median(cpu), "cpu-worker/stack")
	b.ReportMetric(tasks*batch/median(took), "samples/s")
	b.ReportMetric(0, "ns/op")
}

// spent is what tasks took, in seconds.
type spent struct{ wall, cpu float64 }

// children are the ids of a process's children.
func children(pid int) (list []int) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range threads {
		text, _ := os.ReadFile(file)
		for _, field := range strings.Fields(string(text)) {
			n, _ := strconv.Atoi(field)
			list = append(list, n)
		}
	}
	return list
}

// cpuOf returns the seconds of CPU of processes, of their children, and of those that these have waited for.
func cpuOf(pids ...int) (seconds float64) {
	const ticks = 100 // a second, as /proc counts on Linux
	for _, pid := range pids {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, after, _ := strings.Cut(string(text), ") ")
		for i, field := range strings.Fields(after) {
			if n, err := strconv.Atoi(field); err == nil && i >= 11 && i <= 14 { // utime, stime, cutime, cstime
				seconds += float64(n) / ticks
			}
		}
		seconds += cpuOf(children(pid)...)
	}
	return seconds
}
