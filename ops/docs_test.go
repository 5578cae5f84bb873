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
	mdBlock   = regexp.MustCompile("(?ms)^ *```\n(.*?)^ *```$")
	mdCommand = regexp.MustCompile(`(?m)^(?:\$ )?(?:bin/ops|go run \./ops|ops) (.*?)(?:  .*)?(?: #.*)?$`)
)

// The command line understands every command that a block of the documentation has.
func TestDocumentedCommands(t *testing.T) {
	texts := readPages(t)
	t.Chdir(t.TempDir())
	if err := os.WriteFile("FILE", nil, 0o600); err != nil { // named where a flag asks for a file that is there
		t.Fatal(err)
	}
	parsed := 0
	for page, text := range texts {
		for _, inside := range mdBlock.FindAllStringSubmatch(text, -1) {
			for _, line := range mdCommand.FindAllStringSubmatch(inside[1], -1) {
				if strings.Contains(line[1], "──") { // a drawing
					continue
				}
				parser, err := kong.New(&CLI{}, variables()) // each its own: one remembers the flags of the last
				if err != nil {
					t.Fatal(err)
				}
				if _, err := parser.Parse(strings.Fields(line[1])); err != nil {
					t.Errorf("%s: ops %s: %v", page, line[1], err)
				}
				parsed++
			}
		}
	}
	if parsed < 30 {
		t.Errorf("only %d commands were found", parsed)
	}
}

var (
	mdCode = regexp.MustCompile("`([^`\n]+)`")
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
