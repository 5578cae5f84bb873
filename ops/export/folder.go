package export

import (
	"context"
	"fmt"
	"iter"
	"slices"
)

// folderBytes is how much a part of folders has: what an interrupted export writes again, and with small files how many
// names four parts hold in memory at once.
const folderBytes = 128 << 20

// folders writes folders and files: questions/<domain>_task/<id>/. Where two generators have the same domain, their
// level is kept: questions/<generator>/<domain>_task/<id>/. With several splits, each is a folder below questions/.
type folders struct {
	lists    bool // those of the format manifest, too
	split    bool
	collides map[string]bool // domains
}

// Folder returns the format folder.
func Folder() Format { return &folders{} }

// Manifest returns the format manifest.
func Manifest() Format { return &folders{lists: true} }

func (f *folders) Name() string {
	if f.lists {
		return "manifest"
	}
	return "folder"
}

func (f *folders) Cut(int64) Cut { return Cut{Bytes: folderBytes, Rows: f.lists} }

func (f *folders) Check(p *Plan) error {
	f.split, f.collides = len(p.Splits) > 1, map[string]bool{}
	seen := map[string]bool{}
	for _, g := range p.Generators {
		for _, domain := range g.Domains {
			f.collides[domain] = seen[domain]
			seen[domain] = true
		}
	}
	if collision := slices.IndexFunc(p.Generators, func(g *Generator) bool {
		return slices.ContainsFunc(p.Generators, func(other *Generator) bool {
			return slices.ContainsFunc(other.Domains, func(domain string) bool { return domain+"_task" == g.Name })
		})
	}); collision >= 0 {
		return fmt.Errorf("the generator %s has the name of a domain's folder", p.Generators[collision].Name)
	}
	return nil
}

// sample is the folder of a sample.
func (f *folders) sample(r *Row) string {
	split, generator := "", ""
	if f.split {
		split = r.Split + "/"
	}
	if f.collides[r.Domain] {
		generator = r.Generator + "/"
	}
	return fmt.Sprintf("questions/%s%s%s_task/%s/", split, generator, r.Domain, r.ID)
}

func (f *folders) Part(ctx context.Context, _ Part, rows iter.Seq2[*Row, error], out Output) error {
	for r, err := range rows {
		if err != nil {
			return err
		}
		folder := f.sample(r)
		for i := range r.Files {
			if err := out.Copy(ctx, folder+r.Files[i].Name, &r.Files[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *folders) Finish(ctx context.Context, p *Plan, out Output) error {
	if !f.lists {
		return nil
	}
	return f.writeLists(ctx, p, out)
}
