package contract

import (
	"fmt"
	"math"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/plan"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/probe"
)

// Advice is how to cut a generator's work.
type Advice struct {
	Chunk   int    `json:"chunk"` // samples of one process
	Batch   int    `json:"batch"` // samples of one task
	Because string `json:"because,omitempty"`
}

// cost fits what was measured. A few samples tell a few samples' worth: a generator
// whose samples differ much in cost needs more of them.
func (k *check) cost() {
	c := probe.CostOf(k.generator, k.measured)
	advice := advise(c, k.generator.ChunkSize)
	k.report.Cost, k.report.Advice = &c, &advice
}

// SaveCosts keeps what was measured in the folder of the local stack, for ops plan.
// Reports may be nil where a check was interrupted.
func SaveCosts(dir string, reports []*Report) error {
	var costs []plan.Cost
	for _, r := range reports {
		if r != nil && r.Cost != nil {
			costs = append(costs, *r.Cost)
		}
	}
	if len(costs) == 0 {
		return nil
	}
	return plan.SaveCosts(dir, costs...)
}

// advise cuts the work as a large run does by default. catalogued is the chunk that the catalogue asks for, 0 for none.
// Whether another batch is cheaper depends on the worker, which 'ops plan' knows.
func advise(c plan.Cost, catalogued int) Advice {
	var a Advice
	if catalogued == 0 {
		a.Chunk, a.Because = plan.ChunkSize(c, plan.LargeRun)
	} else {
		a.Chunk, a.Because = c.Bearable(catalogued)
		a.Because = strings.TrimSuffix(fmt.Sprintf("the catalogue says chunks of %d; %s", catalogued, a.Because), "; ")
	}
	a.Batch = plan.DefaultSetting().Batch(c, a.Chunk, math.MaxInt)
	return a
}
