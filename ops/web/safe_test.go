package web_test

import (
	"html"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/web"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// Who has no token, another name for this machine or a page elsewhere, reads and changes nothing.
func TestGuard(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze(3))
	s := b.serve(t)
	stranger := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	host := strings.TrimPrefix(s.base, "http://")
	_, port, _ := net.SplitHostPort(host)
	const media = "/media/maze-generator/0/prompt.txt"
	for _, c := range []struct {
		name    string
		client  *http.Client
		method  string
		path    string
		headers []string
		status  int
	}{
		{"the token's cookie", s.client, "GET", media, nil, 200},
		{"localhost", s.client, "GET", media, []string{"Host", "localhost:" + port, "Cookie", s.cookie()}, 200},
		{"own origin", s.client, "GET", media, []string{"Origin", s.base}, 200},
		{"a link from elsewhere", s.client, "GET", "/samples", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode",
			"navigate"}, 200},
		{"no token", stranger, "GET", "/samples", nil, 401},
		{"no token for data", stranger, "GET", "/api/view", nil, 401},
		{"no token for media", stranger, "GET", media, nil, 401},
		{"no token for a write", stranger, "POST", "/flags", nil, 401},
		{"no token for scripts", stranger, "GET", "/static/app.js", nil, 401},
		{"wrong token", stranger, "GET", "/?token=AAAA", nil, 401},
		{"empty token", stranger, "GET", "/?token=", nil, 401},
		{"wrong cookie", stranger, "GET", media, []string{"Cookie", "ops-ui-" + port + "=AAAA"}, 401},
		{"rebound name", s.client, "GET", media, []string{"Host", "evil.example:" + port}, 403},
		{"rebound name with the token", stranger, "GET", "/?token=" + s.token, []string{"Host", "evil.example"}, 403},
		{"name that begins as an address", s.client, "GET", media, []string{"Host", "127.0.0.1.evil.example"}, 403},
		{"another machine's address", s.client, "GET", media, []string{"Host", "192.0.2.7:" + port}, 403},
		{"another origin", s.client, "GET", media, []string{"Origin", "http://evil.example"}, 403},
		{"another port's origin", s.client, "GET", media, []string{"Origin", "http://127.0.0.1:1"}, 403},
		{"another origin's write", s.client, "POST", "/flags", []string{"Origin", "http://evil.example"}, 403},
		{"a sandboxed page's write", s.client, "POST", "/flags", []string{"Origin", "null"}, 403},
		{"another site's write", s.client, "POST", "/flags", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"another port's write", s.client, "POST", "/flags", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"another site's picture", s.client, "GET", media, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode",
			"no-cors"}, 403},
		{"another port's script", s.client, "GET", "/static/app.js", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode",
			"no-cors"}, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.do(c.client, c.method, c.path, c.headers...)
			a.want(t, c.status)
			if c.status != 200 && strings.Contains(a.text, "Solve") {
				t.Errorf("it is answered with the prompt: %s", a.text)
			}
			for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
				"Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": ""} {
				if got := a.Header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			policy := a.Header.Get("Content-Security-Policy")
			if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe-eval") ||
				strings.Contains(policy, "script-src") && !strings.Contains(policy, "script-src 'self';") {
				t.Errorf("the policy is %q", policy)
			}
		})
	}
}

// A server for other machines has their addresses for it, no names, and wants the token as well.
func TestGuardElsewhere(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze(3))
	s := b.serveOn(t, "0.0.0.0:0")
	for host, status := range map[string]int{"192.0.2.7:80": 200, "[2001:db8::1]:80": 200, "127.0.0.1:80": 200,
		"localhost": 200, "evil.example:80": 403, "192.0.2.7.evil.example": 403, "": 200} {
		s.get("/samples", "Host", host, "Cookie", s.cookie()).want(t, status)
		s.do(&http.Client{}, "GET", "/samples", "Host", host).want(t, map[int]int{200: 401, 403: 403}[status])
	}
	elsewhere, err := url.Parse(s.Address())
	check(t, err)
	if ip := net.ParseIP(elsewhere.Hostname()); ip == nil || ip.IsUnspecified() {
		t.Errorf("the address is %s", s.Address())
	} else if ip.To4() == nil {
		t.Errorf("it listens by IPv4, and its address is %s", s.Address())
	} else if ip.IsLoopback() && !offline() {
		t.Errorf("other machines cannot open %s", s.Address())
	}
	if !strings.HasPrefix(s.AddressHere(), "http://127.0.0.1:"+elsewhere.Port()+"/?token=") {
		t.Errorf("on this machine it is %s", s.AddressHere())
	}
	if _, err := web.Listen("nonsense"); err == nil || !strings.Contains(err.Error(), "HOST:PORT") {
		t.Errorf("listening on nonsense: %v", err)
	}
	on, err := web.Listen(":0")
	check(t, err)
	defer on.Close()
	if !on.Addr().(*net.TCPAddr).IP.IsLoopback() {
		t.Errorf("without a host it listens on %s", on.Addr())
	}
}

// offline reports whether this machine has no IPv4 address but those of loopback.
func offline() bool {
	all, err := net.InterfaceAddrs()
	return err != nil || !slices.ContainsFunc(all, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast()
	})
}

// The token becomes a cookie that scripts and other sites do not get, and leaves the address.
func TestToken(t *testing.T) {
	t.Parallel()
	s := newBucket(t).serve(t)
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	a := s.do(c, "GET", "/samples?generator=x&token="+s.token)
	a.want(t, http.StatusSeeOther)
	if to := a.Header.Get("Location"); to != "/samples?generator=x" {
		t.Errorf("it leads to %q", to)
	}
	cookie := a.Header.Get("Set-Cookie")
	for _, part := range []string{"HttpOnly", "SameSite=Strict", "Path=/"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("the cookie is %q, without %s", cookie, part)
		}
	}
	if len(s.token) < 26 { // of 32 letters each
		t.Errorf("the token is %q", s.token)
	}
	if a := s.do(c, "GET", "//evil.example/?token="+s.token); strings.HasPrefix(a.Header.Get("Location"), "//") {
		t.Errorf("it leads to %q", a.Header.Get("Location"))
	}
	once := strings.TrimPrefix(s.AddressOnce(), s.base)
	s.do(c, "GET", once).want(t, http.StatusSeeOther)
	s.do(c, "GET", once).want(t, http.StatusUnauthorized)
	if strings.Contains(once, s.token) {
		t.Errorf("%s has the token", once)
	}
	if other := newBucket(t).serve(t); other.token == s.token {
		t.Error("two servers have one token")
	}
}

// With --read-only every request that could change something is refused.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze(3))
	s := b.serve(t, func(c *web.Config) { c.ReadOnly = true })
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		for _, path := range []string{"/flags", "/run", "/failures", "/samples", "/anything"} {
			s.do(s.client, method, path, "Origin", s.base).want(t, http.StatusForbidden, "--read-only")
		}
	}
	a := s.get("/sample/maze-generator/1")
	a.want(t, 200, "Solve 1.")
	if strings.Contains(strings.ToLower(a.text), `method="post"`) {
		t.Error("the page has a form that changes something")
	}
}

// What a generator writes is shown as text or downloaded, and never runs.
func TestGeneratorsText(t *testing.T) {
	t.Parallel()
	const evil = `<script>document.title = "evil"</script><img src=x onerror=alert(1)>`
	g := maze(2)
	g.Files = func(i int) map[string]string {
		files := plain(i)
		files["prompt.txt"], files["rubric.txt"] = evil, "</pre>"+evil
		files["metadata.json"] = `{"name": "` + strings.ReplaceAll(evil, `"`, `\"`) + `"}`
		files["drawing.svg"] = `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`
		files["page.html"], files["page.xhtml"], files["script.js"] = evil, evil, "alert(1)"
		files[`"><script>alert(2)</script>.txt`] = "a name"
		return files
	}
	b := newBucket(t)
	b.commit(t, "v1", task.Files, g)
	s := b.serve(t)
	page := s.get("/sample/maze-generator/0")
	page.want(t, 200, html.EscapeString(evil)[:30])
	for _, raw := range []string{"<script>document", "<img src=x", "<script>alert(2)"} {
		if strings.Contains(page.text, raw) {
			t.Errorf("the page has %s", raw)
		}
	}
	for file, kind := range map[string]string{"drawing.svg": "application/octet-stream",
		"page.html": "application/octet-stream", "page.xhtml": "application/octet-stream",
		"script.js": "application/octet-stream", "prompt.txt": "text/plain; charset=utf-8",
		"metadata.json": "text/plain; charset=utf-8", "first_frame.png": "image/png"} {
		a := s.get("/media/maze-generator/0/" + file)
		a.want(t, 200)
		if got := a.Header.Get("Content-Type"); got != kind {
			t.Errorf("%s is %s, want %s", file, got, kind)
		}
		attached := strings.HasPrefix(a.Header.Get("Content-Disposition"), "attachment")
		if attached != (kind == "application/octet-stream") {
			t.Errorf("%s has the disposition %q", file, a.Header.Get("Content-Disposition"))
		}
		if policy := a.Header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "sandbox; default-src 'none'") {
			t.Errorf("%s has the policy %q", file, policy)
		}
	}
}

// No path leads to a file that no receipt names.
func TestPaths(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze(3))
	s := b.serve(t)
	for _, path := range []string{"/media/maze-generator/0/..%2f1%2fprompt.txt",
		"/media/maze-generator/0/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/media/..%2f..%2fdatasets/0/v1.json",
		"/media/maze-generator/0//etc/passwd", "/media/maze-generator/-1/prompt.txt", "/media/maze-generator/1e0/prompt.txt",
		"/media/maze-generator/00/prompt.txt", "/media/maze-generator/99999999999999999999/prompt.txt",
		"/media/maze-generator/3/prompt.txt", "/media/nobody/0/prompt.txt", "/play/maze-generator/0/nothing.mp4",
		"/static/../server.go", "/static/%2e%2e/templates/layout.html", "/sample/maze-generator/7", "/sample/maze%2f..%2fx/0",
		"/media/maze-generator/0/prompt.txt?dataset=v9"} {
		a := s.get(path)
		if a.StatusCode != 404 || strings.Contains(a.text, "root:") {
			t.Errorf("%s is answered %s: %.100s", path, a.Status, a.text)
		}
	}
	for _, path := range []string{"/samples?dataset=../x", "/play/maze-generator/0/prompt.txt", "/samples?sort=color",
		"/samples?flagged=maybe", "/api/samples?from=-1", "/samples?split=a&splits=b", "/api/view?where=difficulty+%3E"} {
		s.get(path).want(t, 400)
	}
}
