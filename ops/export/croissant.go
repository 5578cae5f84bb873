package export

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	_ "embed"
)

// croissantContext is the JSON-LD context of Croissant 1.1, and what is used of the provenance vocabulary.
//
//go:embed croissant_context.json
var croissantContext json.RawMessage

type object = map[string]any

// writeCroissant describes the export in Croissant 1.1, with its vocabularies for responsible AI and provenance.
// To load the record set files checks the hash of every file that is listed. The files of sample folders are not:
// there may be millions. A file that is listed has their hashes, which SHA256SUMS has, too; that one cannot be listed,
// because it has the hash of croissant.json.
func writeCroissant(ctx context.Context, p *Plan, out *Output) error {
	if p.Format == "folder" || p.Format == "manifest" {
		err := out.Create(ctx, folderSums, 0, func(w io.Writer) error {
			return writeSums(w, out.Files(ctx), func(f Written) bool { return strings.HasPrefix(f.Name, questions) })
		})
		if err != nil {
			return err
		}
	}
	d := croissant{Plan: p}
	for f, err := range out.Files(ctx) {
		if err != nil {
			return err
		}
		if strings.HasPrefix(f.Name, questions) {
			d.folders = true
			continue
		}
		d.files = append(d.files, d.file(f))
	}
	return out.Create(ctx, croissantFile, 0, func(w io.Writer) error { return encodeJSON(w, d.dataset()) })
}

const (
	questions  = "questions/"       // where sample folders are
	folderSums = "questions.sha256" // the lines of SHA256SUMS for them
)

type croissant struct {
	*Plan
	files   []object
	folders bool // there are sample folders
}

func (d *croissant) dataset() object {
	named := object{
		"@context": croissantContext, "@type": "sc:Dataset", "name": d.Dataset,
		"conformsTo": []string{"http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"},
		"description": fmt.Sprintf(
			"%d synthetic samples of %d generators: a first frame and a prompt, and a video of the solution.", d.Rows(),
			len(d.Generators)),
		"keywords":     []string{"synthetic", "video", "reasoning"},
		"distribution": d.distribution(), "recordSet": d.recordSets(),
		"prov:wasGeneratedBy": d.activities(),
	}
	var urls []string
	for _, g := range d.Generators {
		if g.Licence != "" {
			urls = append(urls, "https://spdx.org/licenses/"+g.Licence+".html")
		}
	}
	if urls = slices.Compact(slices.Sorted(slices.Values(urls))); len(urls) > 0 {
		named["license"] = urls
	}
	maps.Copy(named, d.responsible())
	return named
}

func (d *croissant) file(f Written) object {
	o := object{"@type": "cr:FileObject", "@id": f.Name, "name": f.Name, "contentUrl": f.Name,
		"contentSize": fmt.Sprintf("%d B", f.Size), "sha256": f.SHA256,
		"encodingFormat": cmp.Or(mediaTypes[path.Ext(f.Name)], "application/octet-stream")}
	for _, part := range strings.Split(f.Name, "/") {
		name, _, _ := strings.Cut(part, ".tar")
		if slices.ContainsFunc(d.Generators, func(g *Generator) bool { return g.Name == name }) {
			o["prov:wasGeneratedBy"] = object{"@id": activity(name)}
		}
	}
	return o
}

var mediaTypes = map[string]string{".parquet": "application/x-parquet", ".tar": "application/x-tar",
	".json": "application/json", ".jsonl": "application/jsonlines", ".csv": "text/csv", ".md": "text/markdown",
	".png": "image/png", ".sha256": "text/plain"}

// Ids of the sets of files.
const (
	fileSet   = "all-files"
	tableSet  = "tables"
	folderSet = "sample-folders"
)

func (d *croissant) distribution() []object {
	list := slices.Clone(d.files)
	var ids []object
	for _, f := range d.files {
		ids = append(ids, object{"@id": f["@id"]})
	}
	// Of the type of tar files, because a loader unpacks archives in which it expects anything else.
	list = append(list, object{"@type": "cr:FileSet", "@id": fileSet, "name": fileSet, "containedIn": ids,
		"encodingFormat": "application/x-tar", "includes": "*"})
	if d.Format == "parquet" || d.Format == "vbvr" {
		list = append(list, object{"@type": "cr:FileSet", "@id": tableSet, "name": tableSet,
			"encodingFormat": "application/x-parquet", "includes": "data/*.parquet"})
	}
	if d.folders {
		var made []object
		for _, g := range d.Generators {
			made = append(made, object{"@id": activity(g.Name)})
		}
		list = append(list, object{"@type": "cr:FileSet", "@id": folderSet, "name": folderSet,
			"encodingFormat": "application/octet-stream", "includes": questions + "*", "prov:wasGeneratedBy": made,
			"description": "Sample folders. " + folderSums + " has the hashes of their files."})
	}
	return list
}

func (d *croissant) recordSets() []object {
	sets := []object{{"@type": "cr:RecordSet", "@id": "files", "name": "files",
		"description": "The files of the export. To load it checks their hashes.",
		"field": []object{{"@type": "cr:Field", "@id": "files/path", "name": "path", "dataType": "sc:Text",
			"source": object{"fileSet": object{"@id": fileSet}, "extract": object{"fileProperty": "filepath"}}}}}}
	var columns []Column
	switch d.Format {
	case "parquet":
		columns, _ = parquetColumns(d.Plan)
	case "vbvr":
		columns = VBVRColumns()
	}
	var fields []object
	for _, c := range columns {
		if kindFacts[c.Kind].croissant != "" { // lists are left out
			fields = append(fields, field(c))
		}
	}
	if len(fields) > 0 {
		sets = append(sets, object{"@type": "cr:RecordSet", "@id": "samples", "name": "samples",
			"key": object{"@id": "samples/key"}, "field": fields})
	}
	return sets
}

func field(c Column) object {
	source := object{"fileSet": object{"@id": tableSet}, "extract": object{"column": c.Name}}
	if c.Kind == Image || c.Kind == Video {
		source["transform"] = object{"jsonPath": "bytes"}
	}
	return object{"@type": "cr:Field", "@id": "samples/" + c.Name, "name": c.Name, "source": source,
		"dataType": kindFacts[c.Kind].croissant}
}

func activity(generator string) string { return "generators/" + generator }

// activities say which generator and environment made what.
func (d *croissant) activities() (list []object) {
	for _, g := range d.Generators {
		var used []object
		for _, commit := range each(g.Commits) {
			id := "urn:git:commit:" + commit
			if g.Repository != "" {
				id = "https://github.com/" + g.Repository + "/tree/" + commit
			}
			used = append(used, object{"@type": "prov:Entity", "@id": id, "prov:label": "code of " + g.Name})
		}
		for _, lock := range each(g.Locks) {
			used = append(used, object{"@type": "prov:Entity", "@id": "urn:sha256:" + lock,
				"prov:label": "lock: the exact versions of all packages"})
		}
		for _, image := range each(g.Images) {
			used = append(used, object{"@type": "prov:Entity", "prov:label": "image of the workers: " + image})
		}
		for _, platform := range each(g.Platforms) {
			used = append(used, object{"@type": "prov:Entity", "prov:label": "platform: " + platform})
		}
		list = append(list, object{"@type": "prov:Activity", "@id": activity(g.Name),
			"prov:label": fmt.Sprintf("%s made %d samples with %d seeds", g.Name, g.Rows, g.Seeds), "prov:used": used})
	}
	return list
}

// responsible are the properties of Croissant's vocabulary for responsible AI.
func (d *croissant) responsible() object {
	distinct, rows := 0, 0
	var tools []string
	for _, g := range d.Generators {
		distinct, rows = distinct+g.Distinct, rows+g.Rows
		tools = append(tools, strings.TrimSpace(g.Name+" "+strings.Join(each(g.Commits), ", ")))
	}
	missing := "None: all samples that were asked for were there."
	if len(d.Missing) > 0 {
		var of []string
		for _, name := range sortedKeys(d.Missing) {
			of = append(of, fmt.Sprintf("%d of %s", d.Missing[name], name))
		}
		missing = "The export was made before all samples were there. Missing are " + strings.Join(of, ", ") + "."
	}
	processing := "Files are as the generators wrote them."
	if d.Options.Video != "" {
		processing = "Videos were encoded again (" + d.Options.Video + "); other files are as the generators wrote them."
	}
	return object{
		"rai:dataCollection": "All data are synthetic. Programs, the generators, make up each puzzle from a seed, " +
			"and draw its pictures and the video of its solution. They run in a sandbox without network.",
		"rai:dataCollectionType":        []string{"Synthetic data made by programs"},
		"rai:dataCollectionMissingData": missing,
		"rai:dataPreprocessingProtocol": []string{processing},
		"rai:dataAnnotationProtocol": []string{"Prompts, final frames, videos and metadata come from the program that made " +
			"the puzzle. No person wrote or checked them sample by sample."},
		"rai:machineAnnotationTools": tools,
		"rai:annotationsPerItem":     "1",
		"rai:dataBiases": []string{fmt.Sprintf("Puzzles are distributed as the generators' authors have programmed it. "+
			"%d of %d samples have a fingerprint of their own.", distinct, rows)},
		"rai:dataLimitations": []string{"Pictures and videos are drawn, not filmed. Each generator has few styles, " +
			"and may repeat puzzles."},
		"rai:dataUseCases": []string{"Training and evaluation of video models on tasks that need reasoning"},
		"rai:personalSensitiveInformation": []string{"None is an input: a generator is given a seed and a number " +
			"of samples."},
	}
}
