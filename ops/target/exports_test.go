package target

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A client behind a proxy reaches the local stack after eval, and what the user
// wants to reach without the proxy stays so. Python's urllib is what asks, because it
// goes to the proxy for loopback, too.
func TestExportsBypassProxy(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_,
			_ = w.Write([]byte("here"))
	}))
	defer server.Close()
	target := &Target{}
	target.SQSEndpoint = server.URL
	exports := strings.Join(target.Exports(), "\n")
	const client = `; python3 -c 'import os, sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode(), os.environ["NO_PROXY"], os.environ["no_proxy"])' "$1"`
	const loopback = "127.0.0.1,localhost,::1"
	for _, test := range []struct{ name, env, want string }{
		{"none", "", loopback + " " + loopback},
		{"both", "NO_PROXY=a no_proxy=b", loopback + ",a " + loopback + ",b"},
		{"the one", "NO_PROXY=a,.b", loopback + ",a,.b " + loopback + ",a,.b"},
		{"the other", "no_proxy=.b", loopback + ",.b " + loopback + ",.b"},
		{"all", "no_proxy=*", "* *"},
		{"there already", "NO_PROXY=a,127.0.0.1", "a,127.0.0.1 a,127.0.0.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := exec.Command("sh", "-euc", `eval "$0"`+client, exports, server.URL)
			cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "http_proxy=http://127.0.0.1:1",
				"HTTP_PROXY=http://127.0.0.1:1"}, strings.Fields(test.env)...)
			out, err := cmd.CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != "here "+test.want {
				t.Errorf("%s, %v; want here %s", got, err, test.want)
			}
		})
	}
}
