package catalogue

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// api plays GitHub's REST API for the organisation "big", of 250 repositories in
// pages of 100, and the user "someone".
func api(t *testing.T, token string) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != token {
			http.Error(w, `{"message":"Bad credentials"}`, http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	mux.HandleFunc("/orgs/big/repos", func(w http.ResponseWriter, r *http.Request) {
		page := 1
		_, _ = fmt.Sscan(r.FormValue("page"), &page)
		if r.FormValue("per_page") != "100" {
			t.Errorf("asked %s", r.URL)
		}
		if page < 3 {
			w.Header().Set("Link", fmt.Sprintf(
				`<%s/orgs/big/repos?per_page=100&page=1>; rel="first", <%s/orgs/big/repos?per_page=100&page=%d>; rel="next"`,
				server.URL, server.URL, page+1))
		}
		var list []string
		for i := 100 * (page - 1); i < min(100*page, 250); i++ {
			list = append(list, fmt.Sprintf(`{"name":"g%03d","full_name":"big/g%03d","size":5,"license":{"spdx_id":"MIT"}}`, i,
				i))
		}
		if page == 2 { // shifted by one that was made meanwhile
			list[0] = `{"name":"g099","full_name":"big/g099","size":5,"license":{"spdx_id":"MIT"}}`
		}
		fmt.Fprintf(w, "[%s]", strings.Join(list, ","))
	})
	mux.HandleFunc("/users/someone/repos", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"name":"a","full_name":"someone/a","size":1,"license":null},{"name":"b","full_name":"someone/b","size":1,"license":{"spdx_id":"NOASSERTION"}},
			{"name":"empty","full_name":"someone/empty","size":0},{"name":"form","full_name":"someone/form","size":1,"is_template":true},
			{"name":".github","full_name":"someone/.github","size":1},{"name":"off","full_name":"someone/off","size":1,"disabled":true},{"name":"../up","full_name":"someone/../up","size":1}]`)
	})
	mux.HandleFunc("/orgs/limited/repos", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-RateLimit-Remaining", "0")
		w.Header().Set("X-RateLimit-Reset", fmt.Sprint(time.Date(2030, 1, 2, 13, 14, 15, 0, time.Local).Unix()))
		http.Error(w, `{"message":"API rate limit exceeded"}`, http.StatusForbidden)
	})
	mux.HandleFunc("/orgs/hasty/repos", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "60")
		http.Error(w, `{"message":"secondary rate limit"}`, http.StatusTooManyRequests)
	})
	mux.HandleFunc("/orgs/closed/repos", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"message":"Resource protected by organization SAML enforcement."}`, http.StatusForbidden)
	})
	mux.HandleFunc("/orgs/astray/repos", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", `<https://elsewhere.example.invalid/steal>; rel="next"`)
		fmt.Fprint(w, `[]`)
	})
	mux.HandleFunc("/orgs/endless/repos", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", `</orgs/endless/repos>; rel="next"`)
		fmt.Fprint(w, `[]`)
	})
	mux.HandleFunc("/orgs/proxy/repos",
		func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>Please log in") })
	mux.HandleFunc("/orgs/ill/repos",
		func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oops", http.StatusBadGateway) })
	return server
}

func TestRepositories(t *testing.T) {
	server := api(t, "")
	list, err := GitHub{API: server.URL}.Repositories(t.Context(), "big")
	if err != nil || len(list) != 249 || list[0] != (Repository{"g000", "big/g000", "MIT"}) || list[248].Name != "g249" {
		t.Errorf("got %d, %v: %v", len(list), err, list)
	}
	list, err = GitHub{API: server.URL + "/"}.Repositories(t.Context(), "someone")
	if err != nil || fmt.Sprint(list) != "[{a someone/a } {b someone/b }]" {
		t.Errorf("got %v, %v", list, err)
	}
	for owner, want := range map[string]string{
		"nobody":  `GitHub knows no organisation or user "nobody"`,
		"limited": "used up until 13:14:15: wait, or set GITHUB_TOKEN",
		"hasty":   "used up until ",
		"closed":  "403 Forbidden: Resource protected by organization SAML enforcement.",
		"astray":  "names a next page elsewhere",
		"endless": "more than 500 pages",
		"proxy":   "is no list of repositories",
		"ill":     "502 Bad Gateway: no reason given",
	} {
		if list, err := (GitHub{API: server.URL}).Repositories(t.Context(), owner); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v, want ...%s...", owner, list, err, want)
		}
	}
	server.Close()
	if _, err := (GitHub{API: server.URL}).Repositories(t.Context(), "big"); err == nil ||
		!strings.Contains(err.Error(), "ask GitHub: ") {
		t.Errorf("down: %v", err)
	}
}

func TestToken(t *testing.T) {
	bin := t.TempDir()
	write(t, filepath.Join(bin, "gh"), "#!/bin/sh\n[ \"$*\" = 'auth token' ] && echo of-gh\n")
	if err := os.Chmod(filepath.Join(bin, "gh"), 0o755); err != nil {
		t.Fatal(err)
	}
	set := func(github, gh, path string) {
		t.Setenv("GITHUB_TOKEN", github)
		t.Setenv("GH_TOKEN", gh)
		t.Setenv("PATH", path)
	}
	for _, test := range []struct{ github, gh, path, want string }{
		{"one", "two", bin, "one"}, {"", "two", bin, "two"}, {"", "", bin, "of-gh"}, {"", "", t.TempDir(), ""},
	} {
		set(test.github, test.gh, test.path)
		if got := FindToken(t.Context()); got != test.want {
			t.Errorf("%+v: got %q", test, got)
		}
	}
	server := api(t, "Bearer secret-token")
	if list, err := (GitHub{API: server.URL, Token: "secret-token"}).Repositories(t.Context(), "big"); err != nil ||
		len(list) != 249 {
		t.Errorf("got %d, %v", len(list), err)
	}
	_, err := GitHub{API: server.URL, Token: "old-token"}.Repositories(t.Context(), "big")
	if err == nil || !strings.Contains(err.Error(), "does not accept the token") ||
		strings.Contains(err.Error(), "old-token") {
		t.Errorf("got %v", err)
	}
}
