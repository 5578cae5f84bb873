package catalogue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// fetchTime is how long the fetch of one repository may take: the largest of the
// organisation's are some megabytes.
const fetchTime = 10 * time.Minute

// pinned is the ref that marks what was fetched. A clone whose HEAD is elsewhere, or
// that has other refs, is one that somebody works in.
const pinned = "refs/ops/pin"

// errNoProgram says that a repository is no generator.
var errNoProgram = errors.New("no generator")

// clone fetches one commit into dir, which is not there yet, and leaves there a
// clone with that commit checked out. For "" it is the remote's HEAD. The hash of
// the commit is returned when HEAD is it and all of its files are there.
func clone(ctx context.Context, dir, url, commit string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTime, fmt.Errorf("nothing complete was fetched within %s",
		fetchTime))
	defer cancel()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	want := cmp.Or(commit, "HEAD")
	err := each(ctx, dir, []string{"init", "--quiet", "--template="}, []string{"config", "remote.origin.url", url},
		[]string{"fetch", "--quiet", "--no-tags", "--depth=1", "origin", "+" + want + ":" + pinned})
	if refused(err) {
		err = fetchAll(ctx, dir, want)
	}
	if absent(err) {
		return "", fmt.Errorf("%s is not there, or not public: %w", url, err)
	}
	if err != nil {
		return "", err
	}
	if _, err := git(ctx, dir, false, "checkout", "--quiet", "--force", "--detach", pinned); err != nil {
		return "", err
	}
	head, err := git(ctx, dir, false, "rev-parse", "--verify", "HEAD^{commit}")
	if err == nil && commit != "" && head != commit {
		err = fmt.Errorf("%s gave commit %s for %s", url, head, commit)
	}
	return head, err
}

// each runs commands of git in a folder until one fails. A fetch has the user's settings.
func each(ctx context.Context, dir string, commands ...[]string) error {
	for _, args := range commands {
		if _, err := git(ctx, dir, args[0] == "fetch", args...); err != nil {
			return err
		}
	}
	return nil
}

// fetchAll fetches every branch and tag, for servers that hand out nothing less,
// and keeps of them what is wanted.
func fetchAll(ctx context.Context, dir, want string) error {
	if _, err := git(ctx, dir, true, "fetch", "--quiet", "--no-tags", "origin", "+HEAD:refs/all/HEAD",
		"+refs/heads/*:refs/all/heads/*", "+refs/tags/*:refs/all/tags/*"); err != nil {
		return err
	}
	if want == "HEAD" {
		want = "refs/all/HEAD"
	}
	if _, err := git(ctx, dir, false, "update-ref", pinned, want+"^{commit}"); err != nil {
		return fmt.Errorf("commit %s is in no branch or tag any more: ops generators sync --update takes the newest", want)
	}
	all, err := git(ctx, dir, false, "for-each-ref", "--format=delete %(refname)", "refs/all")
	if err != nil {
		return err
	}
	for line := range strings.Lines(all) {
		if _, err := git(ctx, dir, false, "update-ref", "-d",
			strings.TrimSpace(strings.TrimPrefix(line, "delete "))); err != nil {
			return err
		}
	}
	return nil
}

// examine refuses a clone that is no generator, or that would be dangerous to use
// as one, and returns what its user should know.
func examine(ctx context.Context, dir string) (notes []string, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	files, err := git(ctx, dir, false, "ls-files", "-z", "--stage")
	if err != nil {
		return nil, err
	}
	for line := range strings.SplitSeq(files, "\x00") {
		about, name, _ := strings.Cut(line, "\t")
		switch mode, _, _ := strings.Cut(about, " "); mode {
		case "120000":
			// A link that leads nowhere does no harm; one that leads out of the folder
			// would be followed by everything that reads the generator.
			if _, err := root.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("its link %s cannot be followed within its folder", name)
			}
		case "160000":
			notes = append(notes, "its submodule "+name+" is not fetched")
		}
	}
	if info, err := root.Stat(filepath.FromSlash(generator.DefaultEntry)); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it has no %s", errNoProgram, generator.DefaultEntry)
	}
	if large, err := git(ctx, dir, false, "grep", "--cached", "-l", "-I", "-e",
		"^version https://git-lfs.github.com/spec/"); err == nil {
		notes = append(notes, fmt.Sprintf("%d of its files are in Git LFS and are not fetched", strings.Count(large, "\n")+1))
	}
	return notes, nil
}

// errOccupied says that a folder holds what sync must not touch.
type errOccupied struct{ why string }

func (e *errOccupied) Error() string { return e.why }

func occupied(format string, args ...any) error { return &errOccupied{fmt.Sprintf(format, args...)} }

// holds returns the commit that is checked out in a folder, "" if there is no
// folder. An *errOccupied says that somebody has work in it.
func holds(ctx context.Context, dir string) (string, error) {
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case info.Mode()&fs.ModeSymlink != 0:
		return "", occupied("%s is a link: move it away to have it fetched", dir)
	case !info.IsDir():
		return "", occupied("%s is a file: move it away", dir)
	}
	if _, err := os.Lstat(filepath.Join(dir, ".git")); err != nil {
		return "", occupied("%s is there and is no clone: move it away to have it fetched", dir)
	}
	head, err := git(ctx, dir, false, "rev-parse", "--verify", "HEAD^{commit}")
	if err != nil {
		return "", notOurs(ctx, dir, err)
	}
	changes, err := git(ctx, dir, false, "status", "--porcelain")
	if err != nil {
		return "", notOurs(ctx, dir, err)
	}
	if changes != "" {
		first, _, _ := strings.Cut(changes, "\n")
		return "", occupied("%s has local changes (%s): commit them elsewhere, or move it away", dir,
			strings.TrimSpace(first))
	}
	return head, nil
}

func notOurs(ctx context.Context, dir string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return occupied("%s is no clone that can be used (%v): move it away", dir, err)
}

// replaceable reports, with an *errOccupied, when a clone holds more than sync has
// put there, which would be lost.
func replaceable(ctx context.Context, dir, head string) error {
	refs, err := git(ctx, dir, false, "for-each-ref", "--format=%(objectname) %(refname)")
	if err != nil {
		return err
	}
	if refs != head+" "+pinned {
		return occupied("%s has branches or commits of its own, and is not at the commit of the catalogue: move it away", dir)
	}
	ignored, err := git(ctx, dir, false, "status", "--porcelain", "--untracked-files=all", "--ignored=matching")
	if err != nil {
		return err
	}
	for line := range strings.Lines(ignored) {
		name := strings.TrimSpace(strings.TrimPrefix(line, "!! "))
		if !strings.HasSuffix(name, "__pycache__/") && !strings.HasSuffix(name, ".pyc") {
			return occupied("%s holds files that git ignores (%s), and is not at the commit of the catalogue: move them away",
				dir, name)
		}
	}
	return nil
}

// between counts the commits that came after one commit up to another, or returns
// -1 where the second does not descend from the first or it cannot be found out.
// Only commits are fetched for it, where the server can leave out the rest.
func between(ctx context.Context, scratch, url, from, to string) int {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	dir, err := os.MkdirTemp(scratch, "history-")
	if err != nil {
		return -1
	}
	defer os.RemoveAll(dir)
	if each(ctx, dir, []string{"init", "--quiet", "--bare", "--template="}, []string{"config", "remote.origin.url", url},
		[]string{"fetch", "--quiet", "--no-tags", "--filter=tree:0", "origin", "+HEAD:" + pinned},
		[]string{"merge-base", "--is-ancestor", from, to}) != nil {
		return -1
	}
	text, err := git(ctx, dir, false, "rev-list", "--count", from+".."+to)
	if n, bad := strconv.Atoi(text); err == nil && bad == nil {
		return n
	}
	return -1
}

// newest returns the commit of the remote's HEAD.
func newest(ctx context.Context, url string) (string, error) {
	text, err := git(ctx, ".", true, "ls-remote", "--quiet", "--", url, "HEAD")
	if absent(err) {
		return "", fmt.Errorf("%s is not there, or not public: %w", url, err)
	}
	if err != nil {
		return "", err
	}
	commit, _, _ := strings.Cut(text, "\t")
	if commit == "" {
		return "", fmt.Errorf("%s is empty: it has no commit", url)
	}
	return commit, nil
}
