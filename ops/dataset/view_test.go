package dataset

import "testing"

// Of no samples no cell is read.
func TestCellsOfNone(t *testing.T) {
	for range CellsOf(t.Context(), nil, "maze", nil) {
		t.Error("a cell is read")
	}
	if indices, changed, attempt, err := Replaceable(t.Context(), nil, "maze", nil); len(indices) != 0 || changed != 0 ||
		attempt != 0 || err != nil {
		t.Errorf("of no samples %v are replaceable, %d have changed: attempt %d, %v", indices, changed, attempt, err)
	}
}
