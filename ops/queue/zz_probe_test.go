package queue

import (
	"fmt"
	"os"
	"testing"
	"time"
	"runtime"
)

func TestProbe(t *testing.T) {
	e := newEndpoint(t, t.TempDir())
	end := time.Now().Add(40 * time.Second)
	n := 0
	stop := make(chan struct{})
	if os.Getenv("GC") != "" {
		go func() { for { select { case <-stop: return; default: runtime.GC() } } }()
	}
	defer close(stop)
	for time.Now().Before(end) {
		for i := range 12 { e.bury(t, fmt.Sprint(i)) }
		if _, err := e.client.Replay(t.Context(), again); err != nil { t.Fatalf("after %d: %v", n, err) }
		e.bodies(t, tasks)
		n++
	}
	t.Logf("%d replays", n)
}
