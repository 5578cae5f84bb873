package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/environment"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// doctor --worker shows what a real worker answers to one invocation of the function. moto runs no
// images, so its part of the invocation is played here.
func TestDoctorWorker(t *testing.T) {
	c := newMotoCloud(t)
	c.setEnvironment(t)
	dir := t.TempDir()
	makeGenerators(t, dir+"/source", "maze-task", "chess-task")
	b := environment.Builder{Root: dir + "/source", Dir: dir + "/image", Python: "/usr/bin/python3"}
	index, err := b.Build(t.Context())
	must(t, err)
	examine := func() []byte {
		must(t, index.Write(dir+"/image"))
		f, err := newFunction(dir+"/image", &c.Outputs, store.New(c.s3, c.BucketName), c.sqs)
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		x, err := f.Handle(ctx, json.RawMessage(worker.Examine))
		must(t, err)
		text, err := json.Marshal(x)
		must(t, err)
		return text
	}
	well := examine()
	index.Generators = append(index.Generators, generator.Generator{Name: "torn-task", Problem: "no index has numpy 9"})
	torn := examine()
	examined := func(change func(*worker.Examination)) any {
		x := &worker.Examination{}
		must(t, json.Unmarshal(well, x))
		change(x)
		return x
	}
	file, err := c.save(dir)
	must(t, err)
	minute := 61.0
	for _, test := range []struct {
		name, check, state, says, try string
		answer                        func() answer
	}{
		{"ready", "generator", "ok", "all 2 can run", "", func() answer {
			return answer{instead: examined(func(*worker.Examination) {})}
		}},
		{"the machine", "worker", "ok", "Linux ", "", func() answer {
			return answer{instead: examined(func(*worker.Examination) {})}
		}},
		{"the sandbox", "sandbox", "ok", "no environment or memory", "", func() answer {
			return answer{instead: examined(func(*worker.Examination) {})}
		}},
		{"the clock", "clock", "ok", "off the bucket's", "", func() answer {
			return answer{instead: examined(func(*worker.Examination) {})}
		}},
		{"a warning that the build hid", "generator", "problem",
			"torn-task is in the image and cannot run: no index has numpy 9", "ops generators check torn-task", func() answer {
				return answer{instead: json.RawMessage(torn)}
			}},
		{"a wrong clock", "clock", "problem", "differ by 1m01s", "set the clock", func() answer {
			return answer{instead: examined(func(x *worker.Examination) { x.ClockAhead = &minute })}
		}},
		{"no answer of the bucket", "clock", "problem", "does not answer there", "network", func() answer {
			return answer{instead: examined(func(x *worker.Examination) { x.ClockAhead = nil })}
		}},
		{"no Landlock", "sandbox", "ok", "no Landlock", "", func() answer {
			return answer{instead: examined(func(x *worker.Examination) {
				x.Landlock, x.Sees.Proc = 0, map[string][]int{"cmdline": {1}}
			})}
		}},
		{"an open /proc", "sandbox", "problem", "can read environ of process 1, 7, mem of the worker in /proc",
			"only generators", func() answer {
				return answer{instead: examined(func(x *worker.Examination) {
					x.Sees.Proc = map[string][]int{"environ": {1, 7}, "mem": {x.Worker}}
				})}
			}},
		{"an older image", "worker", "problem", "num_samples is missing", "pulumi up", func() answer {
			return answer{failed: true, instead: map[string]string{"errorMessage": "num_samples is missing"}}
		}},
		{"another function", "worker", "problem", "is not that of a worker", "pulumi up", func() answer {
			return answer{instead: "hello"}
		}},
		{"no right to invoke", "worker", "problem", "AccessDeniedException", "AWS_PROFILE", func() answer {
			return answer{status: 403, code: "AccessDeniedException"}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := test.answer()
			a.method, a.path, a.once = "POST", "/2015-03-31/functions/"+c.FunctionName+"/invocations", true
			c.answer(a)
			found, status := diagnoseWith(t, DoctorCmd{Worker: true}, target.Flags{Outputs: file, Generators: dir + "/source"})
			f := found[test.check]
			if f.State != test.state || !strings.Contains(f.Says, test.says) || !strings.Contains(f.Try, test.try) ||
				(test.state == "problem") != (status == ui.ExitProblem) {
				t.Errorf("status %d, %+v", status, f)
			}
		})
	}
}
