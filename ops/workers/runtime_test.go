package workers

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// Another user of the machine can connect to the runtime API, but takes no task there and answers none.
func TestRuntimeSecret(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := New(Config{Workers: 1, Fail: func(error) { cancel() }, Start: func(_ int, api string) (*Process, error) {
		address, secret, _ := strings.Cut(api, "/")
		if len(secret) < 26 { // of 32 letters each
			t.Errorf("the secret of %s is too short", api)
		}
		for _, path := range []string{"GET /2018-06-01/runtime/invocation/next",
			"GET /AAAA/2018-06-01/runtime/invocation/next", "POST /2018-06-01/runtime/invocation/1/response",
			"POST /2018-06-01/runtime/invocation/1/error"} {
			method, path, _ := strings.Cut(path, " ")
			r, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, http.NoBody)
			if err != nil {
				return nil, err
			}
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				return nil, err
			}
			answer.Body.Close()
			if answer.StatusCode != http.StatusNotFound {
				t.Errorf("%s %s is answered %s", method, path, answer.Status)
			}
		}
		return nil, errors.New("enough")
	}})
	if err := p.Run(ctx, ctx); err != nil {
		t.Error(err)
	}
}
