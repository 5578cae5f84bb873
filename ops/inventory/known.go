package inventory

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// Known is one generator of the list.
type Known struct {
	generator.Generator
	Pin     string `json:"pin,omitempty"` // commit that the catalogue names
	Fetched bool   `json:"fetched"`       // its folder is there
	Ready   bool   `json:"ready"`
}

// notMade is no reason to leave a generator out: a run makes it.
const notMade = "its environment is not made yet"

// All returns every generator of the folder and the catalogue, by name.
func (v Inventory) All() ([]Known, error) {
	found, err := v.Folder()
	if err != nil {
		return nil, err
	}
	entries, err := generator.ReadCatalogue(v.Generators)
	if err != nil {
		return nil, err
	}
	built := map[string]generator.Generator{}
	index, err := generator.LoadIndex(filepath.Join(v.LocalDir, "generators"))
	switch {
	case err == nil:
		for _, b := range index.Generators {
			built[b.Name] = b
		}
	case !errors.Is(err, fs.ErrNotExist) && index != nil:
		return nil, err
	}
	list := []Known{}
	for _, f := range found {
		b, there := built[f.Name]
		k := Known{Generator: f, Pin: entries[f.Name].Commit, Fetched: true}
		delete(entries, f.Name)
		switch {
		case f.Problem != "":
		case !there || !slices.Equal(b.Requirements, f.Requirements):
			k.Problem = notMade
		default:
			k.Environment, k.Lock, k.Python, k.Problem = b.Environment, b.Lock, b.Python, b.Problem
			k.Ready = b.Problem == ""
		}
		list = append(list, k)
	}
	for name, e := range entries {
		k := Known{Generator: generator.Generator{Name: name, Traits: generator.Traits{Repository: e.Repository,
			ChunkSize: e.ChunkSize, Options: e.Options, Licence: e.Licence, Category: e.Category, Domain: e.Domain, Pool: e.Pool,
			Network: e.Network, Blender: e.Blender}}, Pin: e.Commit}
		switch {
		case e.Skip != "":
			k.Problem = "left out: " + e.Skip
		case e.OnRequest() != "":
			k.Problem = "fetched only if it is named: " + e.OnRequest()
		case e.Repository != "":
			k.Problem = "not fetched yet"
		default:
			continue // it only has settings for a generator that is not there
		}
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b Known) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
