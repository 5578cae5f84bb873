package catalogue

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// fetchTime is how long the fetch of one repository may take: the largest of the organisation's are some megabytes.
const fetchTime = 10 * time.Minute

// pinned is the ref that marks what was fetched. A clone whose HEAD is elsewhere, or
// that has other refs, is one that somebody works in.
const pinned = "refs/ops/pin"

var errNoProgram = errors.New("no generator")

// clone fetches one commit into dir, which is not there yet, and leaves there a clone with that commit checked out. For
// "" it is the remote's HEAD. The hash of the commit is returned when HEAD is it and all of its files are there.
func clone(ctx context.Context, dir, url, commit string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTime, fmt.Errorf("nothing complete was fetched within %s",
		fetchTime))
	defer cancel()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	want := cmp.Or(commit, "HEAD")
	if err := each(ctx, dir, []string{"init", "--quiet", "--template="},
		[]string{"config", "remote.origin.url", url}); err != nil {
		return "", err
	}
	_, err := git(ctx, dir, true, "fetch", "--quiet", "--no-tags", "--depth=1", "origin", "+"+want+":"+pinned)
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

// fetchAll fetches every branch and tag, for servers that hand out nothing less, and keeps of them what is wanted.
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

// holds returns the commit that is checked out in a folder, "" if there is no
// folder. Else it fails: somebody may have work in it.
func holds(ctx context.Context, dir string) (string, error) {
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case info.Mode()&fs.ModeSymlink != 0:
		return "", fmt.Errorf("%s is a link: move it away to have it fetched", dir)
	case !info.IsDir():
		return "", fmt.Errorf("%s is a file: move it away", dir)
	}
	if _, err := os.Lstat(filepath.Join(dir, ".git")); err != nil {
		return "", fmt.Errorf("%s is there and is no clone: move it away to have it fetched", dir)
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
		return "", fmt.Errorf("%s has local changes (%s): commit them elsewhere, or move it away", dir,
			strings.TrimSpace(first))
	}
	return head, nil
}

func notOurs(ctx context.Context, dir string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%s is no clone that can be used (%w): move it away", dir, err)
}

// replaceable fails when a clone holds more than sync has put there, which would be lost.
func replaceable(ctx context.Context, dir, head string) error {
	refs, err := git(ctx, dir, false, "for-each-ref", "--format=%(objectname) %(refname)")
	if err != nil {
		return err
	}
	if refs != head+" "+pinned {
		return fmt.Errorf("%s has branches or commits of its own, and is not at the commit of the catalogue: move it away",
			dir)
	}
	ignored, err := git(ctx, dir, false, "status", "--porcelain", "--untracked-files=all", "--ignored=matching")
	if err != nil {
		return err
	}
	for line := range strings.Lines(ignored) {
		name := strings.TrimSpace(strings.TrimPrefix(line, "!! "))
		if !strings.HasSuffix(name, "__pycache__/") && !strings.HasSuffix(name, ".pyc") {
			return fmt.Errorf("%s holds files that git ignores (%s), and is not at the commit of the catalogue: move them away",
				dir, name)
		}
	}
	return nil
}

// between counts the commits that came after one commit up to another, or returns -1 where the second does not descend
// from the first or it cannot be found out. Only commits are fetched for it, where the server can leave out the rest.
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

// git runs git in a folder and returns what it prints. Its environment is the user's without what belongs to another
// repository, and asks nobody anything: a repository that wants a password is one that is not there. No hook runs, no
// submodule is followed, no other program is started to transport, and a server that sends nothing for half a minute is
// given up.
//
// With own, the user's settings hold, for proxies, credentials and rewritten URLs: it is for what needs the network.
// Without, none do, so that the files of a commit are the same bytes for everybody: no line ends are changed, no filter
// such as Git LFS's runs.
func git(ctx context.Context, dir string, own bool, args ...string) (string, error) {
	always := []string{"-C", dir, "--no-optional-locks"}
	for _, setting := range []string{
		"core.hooksPath=" + os.DevNull, "core.fsmonitor=false", "core.attributesFile=" + os.DevNull, "core.askPass=",
		"credential.interactive=false", "submodule.recurse=false", "fetch.recurseSubmodules=false", "gc.auto=0",
		"maintenance.auto=false", "advice.detachedHead=false", "http.lowSpeedLimit=1000", "http.lowSpeedTime=30",
	} {
		always = append(always, "-c", setting)
	}
	cmd := exec.CommandContext(ctx, "git", append(always, args...)...)
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "GIT_") ||
			own && (strings.HasPrefix(name, "GIT_SSH") || strings.HasPrefix(name, "GIT_SSL")) {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=false", "SSH_ASKPASS=false",
		"GCM_INTERACTIVE=never", "GIT_LFS_SKIP_SMUDGE=1",
		"GIT_ALLOW_PROTOCOL=file:git:http:https:ssh", "GIT_NO_LAZY_FETCH=1")
	if !own {
		cmd.Env = append(cmd.Env, "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_ATTR_NOSYSTEM=1")
	}
	// A session of its own has no terminal that ssh could ask on, and is killed whole.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if errors.Is(err, exec.ErrNotFound) {
		return "", errors.New("there is no git on the PATH: install git")
	}
	if err != nil {
		return "", &gitError{args[0], stderr.String(), err}
	}
	return strings.TrimRight(out.String(), "\n"), nil
}

type gitError struct {
	command string
	stderr  string
	err     error
}

func (e *gitError) Unwrap() error { return e.err }

// Error is the reason in one line: the last that git calls fatal or an error, or else the server's message.
func (e *gitError) Error() string {
	reason := ""
	for line := range strings.Lines(e.stderr) {
		line = strings.TrimSpace(line)
		for _, mark := range []string{"fatal: ", "error: ", "remote: ", "ssh: "} {
			if rest, ok := strings.CutPrefix(line, mark); ok && (reason == "" || mark != "remote: ") {
				reason = strings.TrimSpace(rest)
			}
		}
	}
	return fmt.Sprintf("git %s: %s", e.command, cmp.Or(reason, e.err.Error()))
}

var (
	absentPattern = regexp.MustCompile(
		`could not read (Username|Password)|Repository not found|repository '.*' not found|does not appear to be a git ` +
			`repository|does not exist|No such file or directory|not found: did you run git update-server-info|terminal ` +
			`prompts disabled`)
	refusedPattern = regexp.MustCompile(
		`not our ref|unadvertised object|does not support shallow|no such remote ref|couldn't find remote ref|` +
			`Server does not allow request`)
)

// absent reports whether git failed because there is no such repository, as far as this user can see.
func absent(err error) bool {
	e, ok := errors.AsType[*gitError](err)
	return ok && absentPattern.MatchString(e.stderr)
}

// refused reports whether the server does not hand out a single commit.
func refused(err error) bool {
	e, ok := errors.AsType[*gitError](err)
	return ok && refusedPattern.MatchString(e.stderr)
}

var (
	githubPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9_][A-Za-z0-9._-]*$`)
	sshPattern    = regexp.MustCompile(`^([A-Za-z0-9_.-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*:[^:]`)
	urlPattern    = regexp.MustCompile(`^(https?|git|ssh|file)://`)
)

// location returns what git is told for the repository of an entry: owner/name is on the server; a path that is not
// absolute counts from root; anything else must be a URL.
func (s *Syncer) location(root, repository string) (string, error) {
	switch {
	case githubPattern.MatchString(repository):
		return strings.TrimRight(cmp.Or(s.Server, "https://github.com"), "/") + "/" + repository + ".git", nil
	case strings.HasPrefix(repository, "./") || strings.HasPrefix(repository, "../"):
		return filepath.Abs(filepath.Join(root, repository))
	case filepath.IsAbs(repository), urlPattern.MatchString(repository), sshPattern.MatchString(repository):
		return repository, nil
	}
	return "", fmt.Errorf("repository %q is neither owner/name on GitHub, nor a URL, nor a path that begins with / or ./",
		repository)
}
