package target

import (
	"fmt"
	"strings"
)

// Exports are the outputs as shell code: what the AWS CLI reads, and names for scripts.
func (t *Target) Exports() []string {
	pairs := [][2]string{
		{"AWS_REGION", t.Region}, {"AWS_DEFAULT_REGION", t.Region},
		{"QUEUE_URL", t.QueueURL}, {"DLQ_URL", t.DLQURL}, {"BUCKET", t.BucketName},
		{"AWS_ENDPOINT_URL_SQS", t.SQSEndpoint}, {"AWS_ENDPOINT_URL_S3", t.S3Endpoint},
		{"AWS_ENDPOINT_URL_LAMBDA", t.LambdaEndpoint},
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

// direct keeps boto3, the AWS CLI and curl from using a proxy for this machine. Clients
// that read only one of the two variables get what the user has in the other.
var direct = []string{
	`export NO_PROXY="${NO_PROXY:-${no_proxy:-}}" no_proxy="${no_proxy:-${NO_PROXY:-}}"`,
	`case ",$NO_PROXY," in (",*,"|*,127.0.0.1,*) ;; (*) NO_PROXY="127.0.0.1,localhost,::1${NO_PROXY:+,$NO_PROXY}" ;; esac`,
	`case ",$no_proxy," in (",*,"|*,127.0.0.1,*) ;; (*) no_proxy="127.0.0.1,localhost,::1${no_proxy:+,$no_proxy}" ;; esac`,
}
