package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// InfoCmd shows the stack outputs.
type InfoCmd struct {
	Env bool `help:"Print shell exports instead. For the local stack they include its endpoints and placeholder credentials, so that the AWS CLI and SDKs work after eval."`
}

// Help is the long help.
func (*InfoCmd) Help() string {
	return `Examples:
  ops --stack dev info
  ops --stack local info --json
  eval "$(ops --stack local info --env)" && aws sqs list-queues`
}

// Run prints the outputs.
func (c *InfoCmd) Run(o *Output, t *Target) error {
	if c.Env && o.JSON {
		return ui.Usage("--env prints shell code: leave --json out")
	}
	if c.Env {
		for _, line := range t.exports() {
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

// exports are the outputs as shell code: what the AWS CLI reads, and names for
// scripts.
func (t *Target) exports() []string {
	pairs := [][2]string{
		{"AWS_REGION", t.Region}, {"AWS_DEFAULT_REGION", t.Region},
		{"QUEUE_URL", t.QueueURL}, {"DLQ_URL", t.DLQURL}, {"BUCKET", t.BucketName},
		{"AWS_ENDPOINT_URL_SQS", t.SQSEndpoint}, {"AWS_ENDPOINT_URL_S3", t.S3Endpoint}, {"AWS_ENDPOINT_URL_LAMBDA", t.LambdaEndpoint},
		{"AWS_ACCESS_KEY_ID", t.AccessKeyID}, {"AWS_SECRET_ACCESS_KEY", t.SecretAccessKey},
	}
	var lines []string
	for _, p := range pairs {
		if p[1] != "" {
			lines = append(lines, fmt.Sprintf("export %s='%s'", p[0], strings.ReplaceAll(p[1], "'", `'\''`)))
		}
	}
	if t.SQSEndpoint != "" {
		lines = append(lines, "unset AWS_PROFILE AWS_SESSION_TOKEN") // they would win over the placeholders
		lines = append(lines, direct...)
	}
	return lines
}

// direct keeps clients from asking a proxy for this machine: boto3, the AWS CLI and
// curl do not know that it is of no use to them. Those that read but one of the two
// variables get what the user has in the other.
var direct = []string{
	`export NO_PROXY="${NO_PROXY:-${no_proxy:-}}" no_proxy="${no_proxy:-${NO_PROXY:-}}"`,
	`case ",$NO_PROXY," in (",*,"|*,127.0.0.1,*) ;; (*) NO_PROXY="127.0.0.1,localhost,::1${NO_PROXY:+,$NO_PROXY}" ;; esac`,
	`case ",$no_proxy," in (",*,"|*,127.0.0.1,*) ;; (*) no_proxy="127.0.0.1,localhost,::1${no_proxy:+,$no_proxy}" ;; esac`,
}
