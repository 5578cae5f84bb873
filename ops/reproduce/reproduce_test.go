package reproduce

import (
	"strings"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
)

// What the receipt names and is another one here is told, and what that says of bytes
// that differ.
func TestReproductionSays(t *testing.T) {
	same := true
	here := generator.Generator{Commit: "c1", Lock: "l1", Version: "3.11.2", Platform: "linux-x86_64"}
	as := store.Receipt{Commit: "c1", Lock: "l1", Python: "3.11.2", Platform: "linux-x86_64"}
	for _, test := range []struct {
		change  func(r *store.Receipt)
		note    string // the only one
		verdict string
	}{
		{func(r *store.Receipt) {}, "",
			"differs; two runs agree here, with all that the receipt names: what it does not name has changed, as the generator's files, the machine's libraries or its fonts"},
		{func(r *store.Receipt) { r.Commit = "c2" }, "the receipt's commit is c2, this one is c1", "commit"},
		{func(r *store.Receipt) { r.Lock = "" }, "the receipt's lock is none, this one is l1", "lock"},
		{func(r *store.Receipt) { r.Python = "3.12.0" },
			"the receipt's Python is 3.12.0, this one is 3.11.2: that is not on the PATH, and uv could not bring it", "Python"},
		{func(r *store.Receipt) { r.Platform = "linux-aarch64" },
			"the receipt's platform is linux-aarch64, this one is linux-x86_64", "platform"},
		{func(r *store.Receipt) { r.Image = "i1" }, "the receipt's image is i1, this one is none", "image"},
	} {
		r := &rerun{receipt: as, generator: &here}
		test.change(&r.receipt)
		p := &Reproduction{Deterministic: &same}
		r.differences(p)
		if got := strings.Join(p.Notes, "; "); got != test.note {
			t.Errorf("notes %q, want %q", got, test.note)
		}
		if test.note != "" {
			test.verdict = "differs; two runs agree here, where this is not as in the receipt: " + test.verdict
		}
		if got := p.Verdict(); got != test.verdict {
			t.Errorf("verdict %q, want %q", got, test.verdict)
		}
	}
}
