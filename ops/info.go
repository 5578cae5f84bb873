package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/target"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

type InfoCmd struct {
	Env bool `help:"Print shell exports instead. For the local stack they include its endpoints and placeholder credentials, so that the AWS CLI and SDKs work after eval."`
}

func (*InfoCmd) Help() string {
	return `Examples:
  ops --stack dev info
  ops --stack local info --json
  eval "$(ops --stack local info --env)" && aws sqs list-queues`
}

func (c *InfoCmd) Run(o *Output, t *target.Target) error {
	if c.Env && o.JSON {
		return ui.Usage("--env prints shell code: leave --json out")
	}
	if c.Env {
		for _, line := range t.Exports() {
			fmt.Fprintln(o.Stdout, line)
		}
		return nil
	}
	return o.Print(t.Outputs, func(w io.Writer) {
		text, _ := json.Marshal(t.Outputs)
		var all map[string]any
		_ = json.Unmarshal(text, &all)
		if n := len(t.Generators); n > 0 {
			all["generators"] = fmt.Sprintf("%d in the image; --json names them", n)
		}
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if s := fmt.Sprint(all[name]); s != "" && s != "0" {
				fmt.Fprintf(w, "%s\t%s\n", name, s)
			}
		}
	})
}
