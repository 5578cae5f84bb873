// The Pulumi program: 'pulumi up' runs it.
package main

import (
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/vm-dataset/vm-dataset-pipeline/infra"
)

func main() {
	pulumi.Run(func(ctx *pulumi.Context) error {
		c, err := infra.LoadConfig(ctx)
		if err != nil {
			return err
		}
		p, err := infra.NewPipeline(ctx, c.Name, ".", c)
		if err != nil {
			return err
		}
		for name, value := range p.Outputs {
			ctx.Export(name, value)
		}
		return nil
	})
}
