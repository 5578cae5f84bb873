package export

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// hubYAML is what the hub and the loader datasets read at the head of README.md.
type hubYAML struct {
	PrettyName  string    `yaml:"pretty_name"`
	License     any       `yaml:"license"` // one, or a list
	LicenseName string    `yaml:"license_name,omitempty"`
	Tasks       []string  `yaml:"task_categories"`
	Annotations []string  `yaml:"annotations_creators"`
	Sources     []string  `yaml:"source_datasets"`
	Size        []string  `yaml:"size_categories"`
	Tags        []string  `yaml:"tags"`
	Configs     []config  `yaml:"configs,omitempty"`
	Info        []infoFor `yaml:"dataset_info,omitempty"`
}

// config is a choice of the files: those of a generator, or all.
type config struct {
	Name    string      `yaml:"config_name"`
	Default bool        `yaml:"default,omitempty"`
	Files   []dataFiles `yaml:"data_files"`
}

type dataFiles struct {
	Split string `yaml:"split"`
	Path  any    `yaml:"path"` // one, or a list
}

// infoFor says what a config must come to: the loader refuses another number of samples.
type infoFor struct {
	Config   string      `yaml:"config_name"`
	Features []feature   `yaml:"features,omitempty"`
	Splits   []splitInfo `yaml:"splits"`
	Download int64       `yaml:"download_size"` // bytes
	Size     int64       `yaml:"dataset_size"`
}

type splitInfo struct {
	Name  string `yaml:"name"`
	Bytes int64  `yaml:"num_bytes"`
	Rows  int    `yaml:"num_examples"`
}

// feature is a column as the YAML has it.
type feature struct {
	Name   string    `yaml:"name"`
	Type   string    `yaml:"dtype,omitempty"`
	Struct []feature `yaml:"struct,omitempty"`
	List   []feature `yaml:"list,omitempty"`
}

// MarshalJSON writes the feature as the Hugging Face loader stores it in a Parquet file.
func (f feature) MarshalJSON() ([]byte, error) {
	as := map[string]any{"dtype": f.Type, "_type": "Value"}
	switch {
	case f.List != nil:
		of := map[string]feature{}
		for _, field := range f.List {
			of[field.Name] = field
		}
		as = map[string]any{"_type": "List", "feature": of}
	case f.Type == "image":
		as = map[string]any{"_type": "Image"}
	case f.Type == "video":
		as = map[string]any{"_type": "Video"}
	}
	return json.Marshal(as)
}

// hubConfigs returns a config for all generators, which is the default, and one for each.
func hubConfigs(p *Plan, extension string, features []feature) (list []config, infos []infoFor) {
	add := func(name, folder string, features []feature) {
		c, info := config{Name: name, Default: folder == "*"}, infoFor{Config: name, Features: features}
		for _, split := range p.Splits {
			s := splitInfo{Name: split}
			for _, part := range p.Parts {
				if part.Split == split && (folder == "*" || folder == part.Generator) {
					s.Rows += part.Rows
					s.Bytes += part.Bytes
				}
			}
			if s.Rows > 0 {
				c.Files = append(c.Files, dataFiles{split, fmt.Sprintf("data/%s/%s-*.%s", folder, split, extension)})
				info.Splits = append(info.Splits, s)
				info.Size += s.Bytes
				info.Download += s.Bytes
			}
		}
		list, infos = append(list, c), append(infos, info)
	}
	all := "all"
	if slices.ContainsFunc(p.Generators, func(g *Generator) bool { return g.Name == all && g.Rows > 0 }) {
		all = "default"
	}
	add(all, "*", features)
	for _, g := range p.Generators {
		if g.Rows > 0 {
			add(g.Name, g.Name, nil)
		}
	}
	return list, infos
}

// licences returns what the catalogue says of the generators, as the hub names licences.
func licences(p *Plan) (any, string) {
	known := map[string]bool{}
	for _, g := range p.Generators {
		known[cmp.Or(strings.ToLower(g.Licence), "unknown")] = true
	}
	names := slices.Sorted(maps.Keys(known))
	for _, name := range names {
		if !slices.Contains(hubLicences, name) {
			// The hub knows no such licence, and of several it takes only those that it knows.
			return "other", strings.Join(names, ", ")
		}
	}
	if len(names) == 1 {
		return names[0], ""
	}
	return names, ""
}

// hubLicences are those that generators are likely to have, of the hub's list.
var hubLicences = []string{"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "cc-by-4.0",
	"cc-by-sa-4.0", "cc-by-nc-4.0", "gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "unlicense", "wtfpl",
	"unknown"}

// sizeCategory is the hub's name for a number of samples.
func sizeCategory(n int) string {
	names := []string{"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B"}
	for i, limit := 0, 1000; i < len(names); i, limit = i+1, limit*10 {
		if n < limit {
			return names[i]
		}
	}
	return "10B<n<100B"
}

// tableFeatures returns the features of the columns of a table.
func tableFeatures(columns []Column) []feature {
	var list []feature
	for _, c := range columns {
		list = append(list, feature{Name: c.Name, Type: kindFacts[c.Kind].hub, List: kindFacts[c.Kind].fields})
	}
	return list
}

// webFeatures returns the features of the format webdataset, for files of these names. The loader decodes texts and
// the description, and has two columns of its own.
func webFeatures(names []string) []feature {
	fields := map[string]feature{"json": {Name: "json", Struct: tableFeatures(columnsOf(describedColumns()))},
		rubricFile: {Name: rubricFile, Type: "string"}}
	for _, name := range names {
		if name == metadataFile {
			continue
		}
		f := feature{Name: WebField(name), Type: "binary"}
		if kind, ok := mediaKind(f.Name); ok {
			f.Type = kindFacts[kind].hub
		} else if path.Ext(f.Name) == ".txt" {
			f.Type = "string"
		}
		fields[f.Name] = f
	}
	var list []feature
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		list = append(list, fields[name])
	}
	return append(list, feature{Name: "__key__", Type: "string"}, feature{Name: "__url__", Type: "string"})
}

// Limits of a repository on the Hugging Face hub.
const (
	hubFiles      = 100_000
	hubInFolder   = 10_000
	hubFileBytes  = 200e9
	hubShownNames = 5 // of folders and files that break a limit
)

// HubProblems returns in which ways a finished export breaks the hub's limits, and how many files and bytes it has.
func HubProblems(ctx context.Context, from Destination) (problems []string, files int, bytes int64, err error) {
	folders, large := map[string]int{}, []string{}
	for f, err := range from.List(ctx, "") {
		if err != nil {
			return nil, 0, 0, err
		}
		files++
		bytes += f.Size
		folders[path.Dir(f.Name)]++
		if f.Size > hubFileBytes {
			large = append(large, f.Name)
		}
	}
	if files > hubFiles {
		problems = append(problems, fmt.Sprintf("%d files, and the hub takes %d in a repository", files, hubFiles))
	}
	var full []string
	for _, dir := range slices.Sorted(maps.Keys(folders)) {
		if folders[dir] > hubInFolder {
			full = append(full, fmt.Sprintf("%s has %d files, and the hub takes %d in a folder", dir, folders[dir], hubInFolder))
		}
	}
	for _, name := range large {
		full = append(full, fmt.Sprintf("%s has more than 200 GB, and the hub takes no such file", name))
	}
	if n := len(full) - hubShownNames; n > 0 {
		full = append(full[:hubShownNames], fmt.Sprintf("and %d more folders and files", n))
	}
	return append(problems, full...), files, bytes, nil
}
