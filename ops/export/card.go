package export

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/template"

	_ "embed"

	"go.yaml.in/yaml/v3"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/inspect"
	"github.com/vm-dataset/vm-dataset-pipeline/ops/ui"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
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

// fileNames returns the names of files that samples have. Of those in sub-folders it is the first sample of a
// generator that tells.
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

// addMedia counts a file by what it is as a video.
func (g *Generator) addMedia(name string, m Media) {
	if m.Codec != "" {
		g.Media[describeVideo(&m)]++
		if n := m.Frames; n > 0 {
			g.FewestFrames, g.MostFrames = min(cmp.Or(g.FewestFrames, n), n), max(g.MostFrames, n)
		}
	}
	if sample.IsVideo(name) && !inspect.Plays(name, m) {
		g.Unplayable[cmp.Or(describeVideo(&m), shape(name))]++
	}
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

// shortImage is what tells an image apart.
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

// imageDigest is an image without its repository, whose name holds an account: sha256:..., or the name and tag of one
// that has no digest.
func imageDigest(image string) string {
	if _, digest, ok := strings.Cut(image, "@"); ok {
		return digest
	}
	return path.Base(image)
}
