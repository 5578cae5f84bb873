package main

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// Every command has a long help with examples, and every flag a description.
func TestHelpTeaches(t *testing.T) {
	parser, err := kong.New(&CLI{}, variables())
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range parser.Model.Leaves(true) {
		help, _ := node.Target.Addr().Interface().(interface{ Help() string })
		if help == nil || node.Name != "completion" && !strings.Contains(help.Help(), "Examples:\n  ") {
			t.Errorf("%s has no long help with examples", node.FullPath())
		}
		for _, flag := range node.Flags {
			if flag.Help == "" && !flag.Hidden {
				t.Errorf("%s: --%s has no description", node.FullPath(), flag.Name)
			}
		}
	}
}
