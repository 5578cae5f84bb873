package web

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// guard decides who may ask for anything.
//
//   - The address that is printed has a random token, which becomes a cookie that scripts and other sites cannot send.
//   - A name that some site points at this machine (DNS rebinding) is no name of this server: Host is checked.
//   - A page of another origin can neither write, whatever it sends, nor read: Origin and Sec-Fetch-Site are checked.
//   - Pages load and run only what this server has: no inline script or style, nothing from elsewhere.
type guard struct {
	token    string
	once     *sync.Map // tokens that are good for one request
	cookie   string    // its name: browsers share cookies between the ports of a host
	here     string    // address of this machine by which it reaches the server itself
	network  string    // and by which others do: the same if they do not
	port     string
	loopback bool
	readOnly bool
	origins  *http.CrossOriginProtection
}

const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; " +
	"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func newGuard(address net.Addr, readOnly bool) (guard, error) {
	host, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return guard{}, err
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return guard{}, err
	}
	g := guard{token: rand.Text(), once: &sync.Map{}, cookie: "ops-ui-" + port, here: host, network: host, port: port,
		loopback: ip.IsLoopback(), readOnly: readOnly, origins: http.NewCrossOriginProtection()}
	if ip.IsUnspecified() {
		g.here = "127.0.0.1"
		g.network = cmp.Or(outward(ip), g.here)
	}
	return g, nil
}

// outward is the address from which this machine reaches others, or "": by IPv4 if 0.0.0.0 is listened on, which nobody
// reaches by IPv6. Nothing is sent: the system picks the address when a socket for datagrams gets a destination, which
// here is one of the documentation's networks.
func outward(listened netip.Addr) string {
	destinations := []string{"192.0.2.1:9", "[2001:db8::1]:9"}
	if listened.Is4() {
		destinations = destinations[:1]
	}
	for _, destination := range destinations {
		c, err := net.Dial("udp", destination)
		if err != nil {
			continue
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).IP.String()
	}
	return ""
}

func (g *guard) address(host, token string) string {
	return "http://" + net.JoinHostPort(host, g.port) + "/?token=" + token
}

// protect answers what may not be asked, and has next answer the rest.
func (g *guard) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if why := g.refuse(r); why != "" {
			http.Error(w, why, http.StatusForbidden)
			return
		}
		if r.Method == http.MethodGet && r.URL.Query().Has("token") && g.opens(r.URL.Query().Get("token")) {
			http.SetCookie(w, &http.Cookie{Name: g.cookie, Value: g.token, Path: "/", HttpOnly: true,
				SameSite: http.SameSiteStrictMode})
			http.Redirect(w, r, withoutToken(r.URL), http.StatusSeeOther)
			return
		}
		if c, err := r.Cookie(g.cookie); err != nil || !g.is(c.Value) {
			g.ask(w, r)
			return
		}
		if g.readOnly && r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "this ops ui was started with --read-only: it changes nothing", http.StatusForbidden)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 32<<20)
		next.ServeHTTP(w, r)
	})
}

func (g *guard) is(token string) bool {
	return subtle.ConstantTimeCompare([]byte(token), []byte(g.token)) == 1
}

func (g *guard) opens(token string) bool {
	_, fresh := g.once.LoadAndDelete(token)
	return fresh || g.is(token)
}

// refuse says why a request is not answered, or "".
func (g *guard) refuse(r *http.Request) string {
	if !g.named(r.Host) {
		return fmt.Sprintf("this server has not the name %.100q: open the address that ops printed", r.Host)
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host {
		return fmt.Sprintf("a page of %.100q may not use this server", origin)
	}
	if g.origins.Check(r) != nil {
		return "a page of another site may not change anything here"
	}
	// A link from elsewhere may lead here; what is embedded or fetched may not.
	site := r.Header.Get("Sec-Fetch-Site")
	if (site == "cross-site" || site == "same-site") && r.Header.Get("Sec-Fetch-Mode") != "navigate" {
		return "a page of another site may not read anything here"
	}
	return ""
}

// named reports whether a Host header is this server. A name may be pointed anywhere by whoever owns it; an address
// may not. The port is not checked: it may be forwarded, as by ssh -L.
func (g *guard) named(host string) bool {
	name := (&url.URL{Host: host}).Hostname()
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return strings.EqualFold(name, "localhost")
	}
	return ip.IsLoopback() || !g.loopback
}

func (g *guard) ask(w http.ResponseWriter, r *http.Request) {
	if !wantsPage(r) {
		http.Error(w, "open the address that ops printed: it has the token", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusUnauthorized)
	_ = tokenPage.Execute(w, withoutToken(r.URL))
}

// tokenPage is shown to who has no cookie. A link from another site brings no cookie of SameSite=Strict along, one on
// this page does.
var tokenPage = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>ops ui</title>
<main><h1>This page needs the token</h1>
<p>Open the address that <code>ops</code> printed: it has the token in it.</p>
<p>If you have done that in this browser, a link brought you here: <a href="{{.}}">continue</a>.</p></main></html>
`))

func withoutToken(u *url.URL) string {
	q := u.Query()
	q.Del("token")
	to := url.URL{Path: "/" + strings.TrimLeft(u.Path, "/"), RawQuery: q.Encode()}
	return to.String()
}

// wantsPage reports whether a request is a browser's that shows what is answered.
func wantsPage(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), "text/html") }

// place reads a place in a list from a request; without it, it is none.
func place(r *http.Request, name string, none int) (int, error) {
	text := r.FormValue(name)
	if text == "" {
		return none, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 1<<40 {
		return 0, badRequest("%s is %.40q, it must be a whole number from 0 to %d", name, text, 1<<40)
	}
	return n, nil
}
