package web

import (
	"bytes"
	"fmt"
	"net/http"
	"sync"
	"time"
)

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
