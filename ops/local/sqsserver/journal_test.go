package sqsserver

import (
	"context"
	"errors"
	"maps"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is what a queue must hold: receives by body.
type model map[string]int

// Whatever is done, and wherever the journal was cut off behind the last
// acknowledged change, the queue holds what it must when it is opened again.
func TestSurvivesTheEndOfTheProcess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "journal")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		now := time.Unix(1_800_000_000, 0)
		open := func() *Server {
			s, err := Open(dir, Options{Now: func() time.Time { return now }})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.CreateQueue(Queue{Name: "q", Visibility: time.Minute, DeadLetter: "d", MaxReceives: 3}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.CreateQueue(Queue{Name: "d"}); err != nil {
				t.Fatal(err)
			}
			return s
		}
		s := open()
		m, dead := model{}, 0
		groups, traces := map[string]string{}, map[string]string{} // by body
		settings := s.queues["q"].Queue                            // what clients have set
		held := map[string]*Delivery{}                             // by body
		at := map[string]time.Time{}                               // when it was received
		next := 0
		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				next++
				body := string(rune('a'+next%26)) + time.Duration(next).String()
				in := &request{QueueUrl: "/q", entry: entry{MessageBody: &body}}
				groups[body] = rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "group")
				in.MessageGroupId = groups[body]
				if traces[body] = rapid.SampledFrom([]string{"", "Root=1"}).Draw(t, "trace"); traces[body] != "" {
					trace := traces[body]
					in.MessageSystemAttributes = map[string]Attribute{traceAttribute: {DataType: "String", StringValue: &trace}}
				}
				if _, err := do(s, "SendMessage", in); err != nil {
					t.Fatal(err)
				}
				m[body] = 0
			},
			"receive": func(t *rapid.T) {
				list, err := s.receive(ended(), "q", receipt{limit: 1})
				if err != nil {
					t.Fatal(err)
				}
				for _, x := range list {
					if h := held[x.Body]; h != nil && now.Sub(at[x.Body]) < time.Minute {
						t.Fatalf("%s was delivered while it was hidden", x.Body)
					}
					n, there := m[x.Body]
					if !there || x.Receives != n+1 || x.Receives > 3 {
						t.Fatalf("%s was delivered for the %d. time, the model has %d (%v)", x.Body, x.Receives, n, there)
					}
					if d := s.delivery(x); d.Attributes["MessageGroupId"] != groups[x.Body] ||
						d.Attributes[traceAttribute] != traces[x.Body] {
						t.Fatalf("%s has %v, it was sent with group %q and trace %q", x.Body, d.Attributes, groups[x.Body],
							traces[x.Body])
					}
					m[x.Body], held[x.Body], at[x.Body] = x.Receives, s.delivery(x), now
				}
			},
			"delete": func(t *rapid.T) {
				for body, d := range held {
					if err := s.Delete("q", d.ReceiptHandle); err != nil {
						t.Fatal(err)
					}
					delete(m, body)
					delete(held, body)
					return
				}
			},
			"return": func(t *rapid.T) {
				for body, d := range held {
					counts := rapid.Bool().Draw(t, "counts")
					if err := s.Return("q", d.ReceiptHandle, counts); err != nil {
						t.Fatal(err)
					}
					if !counts {
						m[body]--
					}
					delete(held, body)
					return
				}
			},
			"the queue is changed": func(t *rapid.T) {
				wait, size := rapid.IntRange(0, 20).Draw(t, "wait"), rapid.IntRange(1024, maxMessage).Draw(t, "size")
				_, err := do(s, "SetQueueAttributes", &request{QueueUrl: "/q", Attributes: map[string]string{
					"ReceiveMessageWaitTimeSeconds": strconv.Itoa(wait), "MaximumMessageSize": strconv.Itoa(size)}})
				tag := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "tag")
				_, tagErr := do(s, "TagQueue",
					&request{QueueUrl: "/q", Tags: map[string]string{tag: strconv.Itoa(size)}})
				_, untagErr := do(s, "UntagQueue", &request{QueueUrl: "/q", TagKeys: []string{"x"}})
				if err := errors.Join(err, tagErr, untagErr); err != nil {
					t.Fatal(err)
				}
				settings.Wait, settings.MaxSize = time.Duration(wait)*time.Second, size
				if tag == "y" {
					settings.Tags = map[string]string{"y": strconv.Itoa(size)}
				} else {
					settings.Tags = maps.Clone(settings.Tags)
				}
				if !s.queues["q"].sameAttributes(settings) || !maps.Equal(s.queues["q"].Tags, settings.Tags) {
					t.Fatalf("the queue is %+v, want %+v", s.queues["q"].Queue, settings)
				}
				settings.Modified = s.queues["q"].Modified
			},
			"time passes": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second)
				for body := range held {
					if now.Sub(at[body]) >= time.Minute {
						delete(held, body)
					}
				}
			},
			"the process ends": func(t *rapid.T) {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				// A write that was never acknowledged may be there in part.
				f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				line, err := encode(change{Queue: "q", Put: &message{ID: "never", Body: "never"}})
				if err != nil {
					t.Fatal(err)
				}
				_, _ = f.Write(line[:rapid.IntRange(0, len(line)-1).Draw(t, "cut")])
				f.Close()
				s = open()
			},
			"": func(t *rapid.T) {
				if n := len(s.queues["q"].messages); n+len(s.queues["d"].messages) != len(m) {
					t.Fatalf("%d in the queue and %d in the DLQ, the model has %d", n, len(s.queues["d"].messages), len(m))
				}
				if n := len(s.queues["d"].messages); n < dead {
					t.Fatalf("the DLQ went from %d to %d", dead, n)
				}
				dead = len(s.queues["d"].messages)
				q := s.queues["q"].Queue
				if !q.sameAttributes(settings) || !maps.Equal(q.Tags, settings.Tags) || !q.Created.Equal(settings.Created) ||
					!q.Modified.Equal(settings.Modified) {
					t.Fatalf("the queue is %+v, it was set to %+v", q, settings)
				}
			},
		})
		_ = s.Close()
	})
}

// ended is a context that lets a receive take what is there and wait for nothing.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// do calls an operation as a request does.
func do(s *Server, operation string, in *request) (any, error) {
	return operations[operation](s, context.Background(), in)
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateQueue(Queue{Name: "q"}); err != nil {
		t.Fatal(err)
	}
	limit := func(bytes uint64) { // of a file's length
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: bytes, Max: math.MaxUint64}); err != nil {
			t.Fatal(err)
		}
	}
	signal.Ignore(syscall.SIGXFSZ)
	limit(2000)
	defer limit(math.MaxUint64)
	sent := 0
	post := func() error {
		body := "a message"
		_, err := do(s, "SendMessage", &request{QueueUrl: "/q", entry: entry{MessageBody: &body}})
		return err
	}
	for err = post(); err == nil; err = post() {
		sent++
	}
	if !errors.Is(err, syscall.EFBIG) || sent == 0 {
		t.Fatalf("after %d messages: %v", sent, err)
	}
	limit(math.MaxUint64)
	if err := post(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if visible, _, _ := s.Counts("q"); visible != sent+1 {
		t.Errorf("%d messages, want %d", visible, sent+1)
	}
}

func FuzzJournal(f *testing.F) {
	lines, _ := encode(change{Queue: "q", Define: &Queue{Name: "q"}},
		change{Queue: "q", Put: &message{ID: "1", Body: "x"}})
	f.Add(lines)
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, journalName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// BenchmarkSend sends batches of ten through the same code as HTTP requests.
func BenchmarkSend(b *testing.B) {
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if _, err := s.CreateQueue(Queue{Name: "q"}); err != nil {
		b.Fatal(err)
	}
	body := `{"type":"maze-task-data-generator","num_samples":100,"seed":42}`
	in := &request{QueueUrl: "/q"}
	for i := range 10 {
		in.Entries = append(in.Entries, entry{Id: string(rune('a' + i)), MessageBody: &body})
	}
	for b.Loop() {
		if _, err := do(s, "SendMessageBatch", in); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(10*b.N)/b.Elapsed().Seconds(), "messages/s")
}
