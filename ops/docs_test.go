package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// readPages returns the text of each page of documentation, by its path in the project.
func readPages(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"../*.md", "../docs/*.md"} {
		list, err := filepath.Glob(pattern)
		if err != nil || len(list) == 0 {
			t.Fatal(pattern, err)
		}
		for _, name := range list {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			texts[strings.TrimPrefix(name, "../")] = string(text)
		}
	}
	return texts
}

var (
	mdBlock   = regexp.MustCompile("(?ms)^ *```[a-z]*\n(.*?)^ *```$")
	mdCommand = regexp.MustCompile(`(?m)^(?:\$ )?(?:bin/ops|go run \./ops|ops) (.*?)(?:  .*)?(?: #.*)?$`)
	mdQuoted  = regexp.MustCompile(`^(?:eval "\$\()?ops (.*?)(?:\)")?$`)
)

// The command line understands every command that a block of the documentation has, or a table of the README.
func TestDocumentedCommands(t *testing.T) {
	texts := readPages(t)
	t.Chdir(t.TempDir())
	if err := os.WriteFile("FILE", nil, 0o600); err != nil { // named where a flag asks for a file that is there
		t.Fatal(err)
	}
	parsed := 0
	parses := func(page, command string) {
		t.Helper()
		parser, err := kong.New(&CLI{}, variables()) // each its own: one remembers the flags of the last
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(strings.Fields(command)); err != nil {
			t.Errorf("%s: ops %s: %v", page, command, err)
		}
		parsed++
	}
	for page, text := range texts {
		for _, inside := range mdBlock.FindAllStringSubmatch(text, -1) {
			for _, line := range mdCommand.FindAllStringSubmatch(inside[1], -1) {
				if !strings.Contains(line[1], "──") { // a drawing
					parses(page, line[1])
				}
			}
		}
	}
	for line := range strings.Lines(mdBlock.ReplaceAllString(texts["README.md"], "")) {
		stack, begun := "", false // the next commands of a cell leave out "ops" and the stack
		for _, code := range mdCode.FindAllStringSubmatch(line, -1) {
			found := mdQuoted.FindStringSubmatch(code[1])
			switch {
			case line[0] != '|':
			case found != nil:
				parses("README.md", found[1])
				stack, begun = mdStack.FindString(found[1]), true
			case begun:
				parses("README.md", stack+code[1])
			}
		}
	}
	if parsed < 70 {
		t.Errorf("only %d commands were found", parsed)
	}
}

var (
	mdCode  = regexp.MustCompile("`([^`\n]+)`")
	mdStack = regexp.MustCompile(`^--stack \w+ `)
	// Files and folders of the project, as they are named in prose.
	mdPath  = regexp.MustCompile(`^(?:\.ci|\.golangci|docs|infra|ops|worker)(?:/[\w.-]+)*(?:\.go|\.py|\.md|\.yaml|/)?$`)
	mdLink  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	mdTitle = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// What the documentation names is there: files, folders, pages and their sections.
func TestDocumentedPlaces(t *testing.T) {
	texts := readPages(t)
	sections := map[string]bool{}
	for page, text := range texts {
		for _, found := range mdTitle.FindAllStringSubmatch(text, -1) {
			sections[page+"#"+strings.ReplaceAll(strings.ToLower(strings.NewReplacer(",", "", "`", "", ".",
				"").Replace(found[1])), " ", "-")] = true
		}
	}
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join("..", name))
		return err == nil
	}
	for page, text := range texts {
		for _, found := range mdLink.FindAllStringSubmatch(text, -1) {
			to, section, _ := strings.Cut(found[1], "#")
			if strings.Contains(to, "://") {
				continue
			}
			if to = filepath.Join(filepath.Dir(page), to); found[1][0] == '#' {
				to = page
			}
			if !exists(to) || section != "" && !sections[to+"#"+section] {
				t.Errorf("%s: no %s", page, found[1])
			}
		}
		for _, found := range mdCode.FindAllStringSubmatch(mdBlock.ReplaceAllString(text, ""), -1) {
			if name := found[1]; strings.Contains(name, "/") && mdPath.MatchString(name) && !exists(name) {
				t.Errorf("%s: no %s", page, name)
			}
		}
	}
	for page, most := range map[string]int{"README.md": 200, "docs/ARCHITECTURE.md": 350} {
		if n := strings.Count(texts[page], "\n"); n > most {
			t.Errorf("%s has %d lines, more than %d", page, n, most)
		}
	}
}
