package web

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// kept is something that is read once for all who ask for it within a moment.
type kept[T any] struct {
	mu      sync.Mutex
	value   T
	until   time.Time // for which the value is used
	changes int       // how often it was forgotten
	flight  singleflight.Group
}

// get returns the value, and reads it if there is none or it is older than fresh. Unless it is older by more than late,
// nobody waits for that: who asks next gets the new one. The reading goes on when who asked leaves.
func (k *kept[T]) get(ctx, background context.Context, fresh, late time.Duration,
	read func(context.Context) (T, error)) (T, error) {
	k.mu.Lock()
	value, changes := k.value, k.changes
	age := time.Since(k.until)
	k.mu.Unlock()
	if age < 0 {
		return value, nil
	}
	// What was begun before a change is not for who asks after it.
	done := begin(background, &k.flight, strconv.Itoa(changes), func(ctx context.Context) (any, error) {
		value, err := read(ctx)
		k.mu.Lock()
		defer k.mu.Unlock()
		if err == nil && k.changes == changes {
			k.value, k.until = value, time.Now().Add(fresh)
		}
		return value, err
	})
	if age < late {
		return value, nil
	}
	return wait[T](ctx, done)
}

// begin does something once for all who ask for it by the same name at the same time.
func begin(background context.Context, f *singleflight.Group, name string,
	do func(context.Context) (any, error)) <-chan singleflight.Result {
	return f.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(background, 5*time.Minute)
		defer cancel()
		return do(ctx)
	})
}

// wait waits for what was begun. That goes on when who asked leaves.
func wait[T any](ctx context.Context, done <-chan singleflight.Result) (value T, err error) {
	select {
	case r := <-done:
		value, _ = r.Val.(T)
		return value, r.Err
	case <-ctx.Done():
		return value, ctx.Err()
	}
}

// forget has the next one who asks read again: it was changed.
func (k *kept[T]) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes++
	k.until = time.Time{}
}

// dropOldest makes room in a map for one more of most. It reads them all: there are few.
func dropOldest[K comparable, V any](from map[K]V, most int, used func(V) time.Time) {
	for len(from) >= most {
		delete(from, slices.MinFunc(slices.Collect(maps.Keys(from)), func(a, b K) int {
			return used(from[a]).Compare(used(from[b]))
		}))
	}
}

// event is a part of a page as it is now. With a name it is the last one of its topic, and says how that ended.
type event struct {
	html []byte
	end  string
	live *liveRun // that it shows, of a run
}

// topic is what the viewers of a page follow. Each of them gets the newest event; who is slow misses those before it.
type topic struct {
	mu   sync.Mutex
	last *event
	news chan struct{} // closed by the next event
}

func newTopic() *topic { return &topic{news: make(chan struct{})} }

func (t *topic) publish(e event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = &e
	close(t.news)
	t.news = make(chan struct{})
}

// now returns the newest event, nil if there was none, and what is closed by the next one.
func (t *topic) now() (*event, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last, t.news
}

// alive is how often a line is sent to a viewer without news: so it shows that the viewer has left.
const alive = 15 * time.Second

// follow sends the events of a topic until its last one, as server-sent events: "update" with HTML, and at the end
// "end" with it, whose id is how it ended.
func follow(w http.ResponseWriter, r *http.Request, t *topic) {
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	tick := time.NewTicker(alive)
	defer tick.Stop()
	for seen := (*event)(nil); ; {
		e, news := t.now()
		if e != nil && e != seen {
			name := "update"
			if e.end != "" {
				name = "end"
			}
			data := bytes.ReplaceAll(bytes.ReplaceAll(e.html, []byte("\r"), nil), []byte("\n"), []byte("\ndata: "))
			if _, err := fmt.Fprintf(w, "event: %s\nid: %s\ndata: %s\n\n", name, e.end, data); err != nil ||
				control.Flush() != nil || e.end != "" {
				return
			}
			seen = e
		}
		select {
		case <-news:
		case <-r.Context().Done():
			return
		case <-tick.C:
			if _, err := fmt.Fprint(w, ":\n\n"); err != nil || control.Flush() != nil {
				return
			}
		}
	}
}
