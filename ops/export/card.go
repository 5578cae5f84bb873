package export

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
)

// Files of the card.
const (
	readmeFile    = "README.md"
	croissantFile = "croissant.json"
	assetsFolder  = "assets" // pictures that README.md shows
)

//go:embed card.md
var cardText string

var cardTemplate = template.Must(template.New("card").Funcs(template.FuncMap{
	"count": ui.Count, "size": ui.Size, "short": ui.Short, "each": each, "kinds": kinds, "cell": cell,
	"image": shortImage}).Parse(cardText))

// card is what README.md says.
type card struct {
	*Plan
	YAML     string
	Splits   []splitInfo
	Samples  []pictured
	Silent   []unplayable // videos that browsers do not play
	Columns  []Column     // of tables
	Videos   []string     // columns of them, for a loader
	Licences bool         // some generator has none that is known
}

// pictured is a sample of a generator with its pictures in the export.
type pictured struct {
	Generator, ID, Prompt string
	Pictures              []picture
}

type picture struct{ Name, Path string }

// unplayable is a kind of video that browsers do not play.
type unplayable struct {
	Generator string
	What      string // as in Generator.Unplayable
	Videos    int
}

func writeCard(ctx context.Context, p *Plan, out *Output) error {
	c := card{Plan: p}
	for _, g := range p.Generators {
		c.Licences = c.Licences || g.Licence == ""
		if err := c.show(ctx, g, out); err != nil {
			return err
		}
		for _, what := range sortedKeys(g.Unplayable) {
			if p.Options.Video == "" {
				c.Silent = append(c.Silent, unplayable{g.Name, what, g.Unplayable[what]})
			}
		}
	}
	for _, split := range p.Splits {
		s := splitInfo{Name: split}
		for _, g := range p.Generators {
			s.Rows += g.Splits[split]
		}
		if s.Rows > 0 {
			c.Splits = append(c.Splits, s)
		}
	}
	var err error
	if c.YAML, err = c.head(ctx, out); err != nil {
		return err
	}
	return out.Create(ctx, readmeFile, 0, func(w io.Writer) error { return cardTemplate.Execute(w, c) })
}

func (c *card) head(ctx context.Context, out *Output) (string, error) {
	p := c.Plan
	y := hubYAML{PrettyName: p.Dataset, Tasks: []string{"image-to-video"}, Annotations: []string{"machine-generated"},
		Sources: []string{"original"}, Size: []string{sizeCategory(c.Rows())},
		Tags: []string{"synthetic", "video", "reasoning", "vm-dataset"}}
	y.License, y.LicenseName = licences(p)
	switch p.Format {
	case "parquet":
		c.Columns, _ = parquetColumns(p)
		c.loaded(p, &y, "parquet", tableFeatures(c.Columns))
	case "webdataset":
		names, err := fileNames(ctx, p, out)
		if err != nil {
			return "", err
		}
		y.Tags = append(y.Tags, "webdataset")
		c.loaded(p, &y, "tar", webFeatures(names))
	case "vbvr":
		y.Configs = []config{{Name: "default", Files: []dataFiles{{"train", "data/metadata.parquet"}}}}
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(y); err != nil {
		return "", err
	}
	return text.String(), nil
}

// loaded says how the loader datasets has the files.
func (c *card) loaded(p *Plan, y *hubYAML, extension string, features []feature) {
	y.Configs, y.Info = hubConfigs(p, extension, features)
	for _, f := range features {
		if f.Type == "video" {
			c.Videos = append(c.Videos, f.Name)
		}
	}
}

// fileNames returns the names of samples' files; those in sub-folders the first sample of a generator tells.
func fileNames(ctx context.Context, p *Plan, out *Output) ([]string, error) {
	names := map[string]bool{}
	for _, g := range p.Generators {
		nested := false
		for name := range g.Names {
			if nested = nested || strings.Contains(name, "/"); !strings.Contains(name, "/") {
				names[name] = true
			}
		}
		if !nested {
			continue
		}
		err := out.First(ctx, g.Name, func(row *Row) error {
			for _, f := range row.Files {
				names[f.Name] = true
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// show copies the pictures of a generator's first sample.
func (c *card) show(ctx context.Context, g *Generator, out *Output) error {
	return out.First(ctx, g.Name, func(row *Row) error {
		s := pictured{Generator: g.Name, ID: row.ID, Prompt: row.Prompt}
		for _, name := range []string{"first_frame.png", "final_frame.png"} {
			f := row.File(name)
			if f == nil {
				continue
			}
			to := path.Join(assetsFolder, g.Name, name)
			if err := out.Copy(ctx, to, f); err != nil {
				return err
			}
			s.Pictures = append(s.Pictures, picture{strings.TrimSuffix(name, ".png"), to})
		}
		c.Samples = append(c.Samples, s)
		return nil
	})
}

// describeVideo says what a video is, beside its length: 512x512 16 fps mpeg4 yuv420p.
func describeVideo(m *Media) string {
	words := []string{}
	if m.Width > 0 {
		words = append(words, fmt.Sprintf("%dx%d", m.Width, m.Height))
	}
	if m.FPS > 0 {
		words = append(words, strconv.FormatFloat(m.FPS, 'f', -1, 64)+" fps")
	}
	return strings.TrimSpace(strings.Join(append(words, m.Codec, m.PixelFormat), " "))
}

// each lists the keys of counts, without that of what is not known.
func each(counts map[string]int) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(counts)), func(key string) bool { return key == "" })
}

func kinds(media map[string]int) []string {
	list := slices.SortedFunc(maps.Keys(media), func(a, b string) int {
		return cmp.Or(media[b]-media[a], strings.Compare(a, b))
	})
	const shown = 3
	if n := len(list) - shown; n > 1 {
		list = append(list[:shown], fmt.Sprintf("and %d more kinds", n))
	}
	return list
}

func shortImage(image string) string {
	if hash, ok := strings.CutPrefix(image, "sha256:"); ok {
		return "sha256:" + ui.Short(hash)
	}
	return cell(image)
}

func cell(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "<", "&lt;", "`", "'", "*", `\*`, "_", `\_`, "[", `\[`).Replace(text)
}

// imageDigest is an image without its repository, whose name holds an account: its digest, or else its name and tag.
func imageDigest(image string) string {
	if _, digest, ok := strings.Cut(image, "@"); ok {
		return digest
	}
	return path.Base(image)
}

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
	if slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(hubLicences, name) }) {
		return "other", strings.Join(names, ", ") // of several the hub takes only those that it knows
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
			large = append(large, f.Name+" has more than 200 GB, and the hub takes no such file")
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
	full = append(full, large...)
	if n := len(full) - hubShownNames; n > 0 {
		full = append(full[:hubShownNames], fmt.Sprintf("and %d more folders and files", n))
	}
	return append(problems, full...), files, bytes, nil
}
