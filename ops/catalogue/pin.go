package catalogue

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

const lockHead = `# The commit at which each generator is fetched, and the repository and licence of those that are
# not in ` + generator.Catalogue + `. Written by "ops generators sync".
`

// SetPin writes the pin of a generator into the catalogue's lock: one line a generator,
// sorted by name. A repository and a licence that the lock has stay if pin has none. The
// file is read again first and replaced in one step.
func SetPin(root, name string, pin generator.Pin) error {
	pins, err := generator.ReadPins(root)
	if err != nil {
		return err
	}
	old := pins[name]
	pin.Repository, pin.Licence = cmp.Or(pin.Repository, old.Repository), cmp.Or(pin.Licence, old.Licence)
	pins[name] = pin
	text := lockHead
	for _, name := range slices.Sorted(maps.Keys(pins)) {
		p := pins[name]
		text += strings.TrimRight(fmt.Sprintf("%s %s %s %s", name, p.Commit, p.Repository, p.Licence), " ") + "\n"
	}
	return atomicfile.Write(filepath.Join(root, generator.CatalogueLock), []byte(text))
}
