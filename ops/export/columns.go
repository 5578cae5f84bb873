package export

// rowColumn is a column of what is said of a row beside its pictures and videos.
type rowColumn struct {
	Column
	cell func(*Row) any
}

var rowColumns = []rowColumn{
	{Column{"key", Text}, func(r *Row) any { return r.Key }},
	{Column{"generator", Label}, func(r *Row) any { return r.Generator }},
	{Column{"domain", Label}, func(r *Row) any { return r.Domain }},
	{Column{"id", Text}, func(r *Row) any { return r.ID }},
	{Column{"index", Int}, func(r *Row) any { return r.Index }},
	{Column{"split", Label}, func(r *Row) any { return r.Split }},
	{Column{"prompt", Text}, func(r *Row) any { return r.Prompt }},
	{Column{"rubric", Text}, func(r *Row) any { return r.Rubric }},
	{Column{"metadata", Text}, func(r *Row) any { return r.Metadata }},
	{Column{"width", Int}, media(func(m *Media) any { return known(m.Width) })},
	{Column{"height", Int}, media(func(m *Media) any { return known(m.Height) })},
	{Column{"frames", Int}, media(func(m *Media) any { return known(m.Frames) })},
	{Column{"fps", Float}, media(func(m *Media) any { return known(m.FPS) })},
	{Column{"seconds", Float}, media(func(m *Media) any { return known(m.Seconds) })},
	{Column{"codec", Label}, media(func(m *Media) any { return known(m.Codec) })},
	{Column{"pixel_format", Label}, media(func(m *Media) any { return known(m.PixelFormat) })},
	{Column{"hints", Label}, func(r *Row) any { return r.Hints }},
	{Column{"fingerprint", Text}, func(r *Row) any { return r.Fingerprint }},
	{Column{"seed", Int}, func(r *Row) any { return r.Seed }},
	{Column{"attempt", Int}, func(r *Row) any { return r.Attempt }},
	{Column{"commit", Label}, func(r *Row) any { return r.Commit }},
	{Column{"lock", Label}, func(r *Row) any { return r.Lock }},
	{Column{"python", Label}, func(r *Row) any { return r.Python }},
	{Column{"platform", Label}, func(r *Row) any { return r.Platform }},
	{Column{"options", Label}, func(r *Row) any { return known(r.Options) }},
	{Column{"files", Hashes}, func(r *Row) any { return r.Files }},
}

// media returns the cell of a fact of the row's video; it is null if there is no video.
func media(fact func(*Media) any) func(*Row) any {
	return func(r *Row) any {
		if v := r.Video(); v != nil && v.Media != nil {
			return fact(v.Media)
		}
		return nil
	}
}

// known returns null for what is not known.
func known[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// RowColumns returns the columns that every table of samples can have: what rows say beside their pictures and videos.
func RowColumns() []Column {
	var columns []Column
	for _, c := range rowColumns {
		columns = append(columns, c.Column)
	}
	return columns
}

// Cell returns what a row has in one of RowColumns.
func (r *Row) Cell(column string) any {
	for _, c := range rowColumns {
		if c.Name == column {
			return c.cell(r)
		}
	}
	return nil
}
