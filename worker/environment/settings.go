package environment

import (
	"context"
	_ "embed" // of pipConfig
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/requirements"
)

// settings say where packages come from: pip's options by name, values of lists separated by spaces. The installer
// reads them in its own way; they are the same wherever a user has put them: pip's configuration files, PIP_*
// variables, uv's own variables, requirements files, each overriding the one before.
type settings map[string]string

// option is an option of pip that counts, and what uv calls it; without variables, uv is told in its requirements file.
type option struct {
	name, also string   // of pip
	variables  []string // of uv; the first is set, all are read
	separator  string   // of a list in uv's variable
	on         string   // value of uv's variable for a flag that is set
}

var options = []option{
	{name: "index-url", variables: []string{"UV_DEFAULT_INDEX", "UV_INDEX_URL"}},
	{name: "extra-index-url", variables: []string{"UV_INDEX", "UV_EXTRA_INDEX_URL"}, separator: " "},
	{name: "find-links", variables: []string{"UV_FIND_LINKS"}, separator: ","},
	{name: "no-index", on: "true"},
	{name: "trusted-host", variables: []string{"UV_INSECURE_HOST"}, separator: " "},
	{name: "constraint"},
	{name: "pre", variables: []string{"UV_PRERELEASE"}, on: "allow"},
	{name: "timeout", also: "default-timeout", variables: []string{"UV_HTTP_TIMEOUT"}},
	{name: "retries", variables: []string{"UV_HTTP_RETRIES"}},
	{name: "cert", variables: []string{"SSL_CERT_FILE"}},
	{name: "client-cert", variables: []string{"SSL_CLIENT_CERT"}},
	{name: "proxy", variables: []string{"ALL_PROXY"}},
}

// pipConfig prints, as JSON, what pip's configuration files say of installing, from the least to the most important as
// pip's documentation lists them (https://pip.pypa.io/en/stable/topics/configuration/). pip itself takes half a second
// to tell, and not every Python has it. A file that cannot be parsed ends it with an error, as it ends pip.
//
//go:embed pipconfig.py
var pipConfig string

var errPipConfig = errors.New("pip's configuration cannot be read")

// pipSettings reads pip's configuration as it is for a Python, and adds what the environment says.
func pipSettings(ctx context.Context, python string) (settings, error) {
	var config map[string]string
	cmd := exec.CommandContext(ctx, python, "-I", "-c", pipConfig)
	cmd.Env = userEnvironment()
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &config)
	} else if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
		err = errors.New(strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w: mend it, or set PIP_CONFIG_FILE=%s to do without", errPipConfig, err, os.DevNull)
	}
	s := settings{"retries": "1"} // five for each package are minutes without a network
	for _, o := range options {
		s.set(o.name, config[o.also])
		s.set(o.name, config[o.name])
		for _, name := range []string{o.also, o.name} {
			s.set(o.name, os.Getenv("PIP_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))))
		}
		for _, name := range slices.Backward(o.variables) {
			value := os.Getenv(name)
			if o.separator != "" {
				value = strings.ReplaceAll(value, o.separator, " ")
			}
			if strings.HasPrefix(name, "UV_") && (o.on == "" || o.on == value) {
				s.set(o.name, value)
			}
		}
	}
	return s, nil
}

// set changes an option unless the value is empty, as pip does.
func (s settings) set(name, value string) {
	if value = strings.Join(strings.Fields(value), " "); value != "" {
		s[name] = value
	}
}

var variablePattern = regexp.MustCompile(`\$\{[A-Z0-9_]+\}`)

// with returns the settings as the options in requirements files change them, as they do with pip, and the lines
// without those. uv would prefer its variables to the files' --index-url and take no notice of --trusted-host.
func (s settings) with(lines []string) (settings, []string) {
	all, rest := maps.Clone(s), []string{}
	for _, line := range lines {
		option, value := requirements.CutOption(line)
		value = variablePattern.ReplaceAllStringFunc(value, func(v string) string {
			if is, ok := os.LookupEnv(v[2 : len(v)-1]); ok {
				return is
			}
			return v
		})
		switch option {
		case "-i", "--index-url", "--pypi-url":
			all.set("index-url", value)
		case "--extra-index-url", "--trusted-host":
			all.set(option[2:], all[option[2:]]+" "+value)
		case "-f", "--find-links":
			all.set("find-links", all["find-links"]+" "+value)
		case "--no-index", "--pre":
			all.set(option[2:], "true")
		case "--prefer-binary", "--use-feature": // of pip alone
		default:
			rest = append(rest, line)
		}
	}
	if all.on("no-index") {
		rest = append(rest, "--no-index")
	}
	for file := range strings.FieldsSeq(all["constraint"]) {
		rest = append(rest, "-c "+file)
	}
	return all, rest
}

// on reports whether a flag is set, in pip's words.
func (s settings) on(name string) bool {
	return s[name] != "" && !slices.Contains([]string{"0", "false", "no", "off", "n", "f"}, strings.ToLower(s[name]))
}

func (s settings) variables() []string {
	env := []string{"PIP_CONFIG_FILE=" + os.DevNull, "PIP_USER=0"} // s has what the files say
	for _, o := range options {
		value := s[o.name]
		if value == "" || o.on != "" && !s.on(o.name) {
			continue
		}
		env = append(env, "PIP_"+strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))+"="+value)
		switch {
		case o.on != "":
			value = o.on
		case o.separator != "":
			value = strings.ReplaceAll(value, " ", o.separator)
		case o.name == "proxy":
			if !strings.Contains(value, "://") {
				value = "http://" + value
			}
			for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
				env = append(env, name+"="+value)
			}
		}
		if o.variables != nil {
			env = append(env, o.variables[0]+"="+value)
		}
	}
	if os.Getenv("UV_INDEX_STRATEGY") == "" { // pip takes the best of all indexes, too
		env = append(env, "UV_INDEX_STRATEGY=unsafe-best-match")
	}
	return env
}

// userEnvironment is the user's environment without what would lead an installer to another place, and without
// credentials that are no business of a package's setup.py.
func userEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains([]string{"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__",
			"UV_SYSTEM_PYTHON"}, name) ||
			strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "PULUMI_")
	})
}

// environ is the environment of an installer: the user's, with these settings in the place of what it says of packages.
func (s settings) environ() []string {
	env := slices.DeleteFunc(userEnvironment(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return strings.HasPrefix(name, "PIP_") && name != "PIP_CACHE_DIR" || name == "UV_INDEX_URL" ||
			name == "UV_EXTRA_INDEX_URL"
	})
	return append(env, s.variables()...) // of two values of a variable the last counts
}
