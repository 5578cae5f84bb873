package catalogue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// GitHub lists what an organisation has.
type GitHub struct {
	API   string // default https://api.github.com
	Token string // "" for what everybody may see, 60 requests an hour
}

// Repository is one of an organisation's.
type Repository struct {
	Name     string
	FullName string // owner/name
	Licence  string // SPDX identifier, "" if GitHub knows none
}

// FindToken returns the token of the environment, else that of the gh program, else "".
func FindToken(ctx context.Context) string {
	if token := cmp.Or(os.Getenv("GITHUB_TOKEN"), os.Getenv("GH_TOKEN")); token != "" {
		return token
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "gh", "auth", "token").Output()
	if err != nil {
		return "" // there is no gh, or it is not logged in
	}
	return strings.TrimSpace(string(out))
}

// pageLimit is a bound against a server that always names a next page; at 100
// repositories a page no organisation comes near.
const pageLimit = 500

// errAbsent says that the API knows no such thing.
var errAbsent = errors.New("not found")

// Repositories returns the repositories of an organisation, or of a user of that name, that could be generators: no
// templates, none that are empty or switched off, none whose name cannot be a generator's.
func (g GitHub) Repositories(ctx context.Context, owner string) ([]Repository, error) {
	list, err := g.list(ctx, "/orgs/"+url.PathEscape(owner)+"/repos?per_page=100&sort=full_name")
	if errors.Is(err, errAbsent) {
		list, err = g.list(ctx, "/users/"+url.PathEscape(owner)+"/repos?per_page=100&sort=full_name")
	}
	if errors.Is(err, errAbsent) {
		return nil, fmt.Errorf("GitHub knows no organisation or user %q", owner)
	}
	return list, err
}

var nextPattern = regexp.MustCompile(`<([^>]+)>\s*;\s*rel="next"`)

func (g GitHub) list(ctx context.Context, path string) ([]Repository, error) {
	base, err := url.Parse(strings.TrimRight(cmp.Or(g.API, "https://api.github.com"), "/"))
	if err != nil {
		return nil, fmt.Errorf("address of the GitHub API: %w", err)
	}
	var list []Repository
	seen := map[string]bool{}
	next := base.String() + path
	for range pageLimit {
		var page []struct {
			Name       string `json:"name"`
			FullName   string `json:"full_name"`
			Size       int    `json:"size"`
			Disabled   bool   `json:"disabled"`
			IsTemplate bool   `json:"is_template"`
			License    *struct {
				SPDX string `json:"spdx_id"`
			} `json:"license"`
		}
		link, err := g.get(ctx, next, &page)
		if err != nil {
			return nil, err
		}
		for _, r := range page {
			// A repository that is made meanwhile can shift another onto the next page.
			if r.Size == 0 || r.Disabled || r.IsTemplate || task.CheckName(r.Name) != nil || seen[r.FullName] {
				continue
			}
			seen[r.FullName] = true
			found := Repository{Name: r.Name, FullName: r.FullName}
			if r.License != nil && r.License.SPDX != "NOASSERTION" {
				found.Licence = r.License.SPDX
			}
			list = append(list, found)
		}
		match := nextPattern.FindStringSubmatch(link)
		if match == nil {
			return list, nil
		}
		u, err := base.Parse(match[1])
		if err != nil || u.Host != base.Host || u.Scheme != base.Scheme {
			return nil, fmt.Errorf("GitHub names a next page elsewhere: %s", match[1]) // which the token is not for
		}
		next = u.String()
	}
	return nil, fmt.Errorf("GitHub names more than %d pages", pageLimit)
}

// client gives up on a server that does not answer.
var client = &http.Client{Timeout: time.Minute}

const answerLimit = 32 << 20 // far above the 600 kB of a page of 100

// get reads one page and returns its Link header.
func (g GitHub) get(ctx context.Context, address string, into any) (link string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Accept", "application/vnd.github+json")
	request.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	if g.Token != "" {
		request.Header.Set("Authorization", "Bearer "+g.Token)
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("ask GitHub: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, answerLimit))
	if err != nil {
		return "", fmt.Errorf("ask GitHub: %w", err)
	}
	if answer.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, into); err != nil {
			return "", fmt.Errorf("GitHub's answer is no list of repositories: %w", err)
		}
		return answer.Header.Get("Link"), nil
	}
	var stderr struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(body, &stderr) // a proxy's answer is no JSON
	switch answer.StatusCode {
	case http.StatusNotFound:
		return "", errAbsent
	case http.StatusUnauthorized:
		return "", errors.New("GitHub does not accept the token: renew GITHUB_TOKEN or GH_TOKEN, run 'gh auth login', " +
			"or unset them to see what is public")
	case http.StatusTooManyRequests, http.StatusForbidden:
		if until := limitedUntil(answer.Header); !until.IsZero() {
			way := ""
			if g.Token == "" {
				way = ", or set GITHUB_TOKEN: without a token there are 60 requests an hour"
			}
			return "", fmt.Errorf("GitHub's rate limit is used up until %s: wait%s", until.Local().Format("15:04:05"), way)
		}
	}
	return "", fmt.Errorf("GitHub answers %s: %s", answer.Status, cmp.Or(stderr.Message, "no reason given"))
}

// limitedUntil returns the time from which GitHub answers again, zero if it is not its rate limit that it refuses with.
func limitedUntil(h http.Header) time.Time {
	if seconds, err := strconv.Atoi(h.Get("Retry-After")); err == nil {
		return time.Now().Add(time.Duration(seconds) * time.Second)
	}
	if reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil &&
		h.Get("X-RateLimit-Remaining") == "0" {
		return time.Unix(reset, 0)
	}
	return time.Time{}
}
