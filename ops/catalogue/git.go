package catalogue

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// git runs git in a folder and returns what it prints. Its environment is the
// user's without what belongs to another repository, and asks nobody anything: a
// repository that wants a password is one that is not there. No hook runs, no
// submodule is followed, no other program is started to transport, and a server
// that sends nothing for half a minute is given up.
//
// With own, the user's settings hold, for proxies, credentials and rewritten URLs:
// it is for what needs the network. Without, none do, so that the files of a
// commit are the same bytes for everybody: no line ends are changed, no filter
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

// gitError is a failed git command with its stderr.
type gitError struct {
	command string
	stderr  string
	err     error
}

func (e *gitError) Unwrap() error { return e.err }

// Error is the reason in one line: the last that git calls fatal or an error, or
// else the server's message.
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
		`could not read (Username|Password)|Repository not found|repository '.*' not found|does not appear to be a git repository|does not exist|No such file or directory|not found: did you run git update-server-info|terminal prompts disabled`)
	refusedPattern = regexp.MustCompile(
		`not our ref|unadvertised object|does not support shallow|no such remote ref|couldn't find remote ref|Server does not allow request`)
)

// absent reports whether git failed because there is no such repository, as far as
// this user can see.
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

// location returns what git is told for the repository of an entry: owner/name is
// on the server; a path that is not absolute counts from root; anything else must be
// a URL.
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
