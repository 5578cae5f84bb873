// The Pulumi program: 'pulumi up' runs it.
package main

import (
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra"
)

func main() { pulumi.Run(infra.Program) }
