package inspect

import "image"

// LookOf returns the look of a sample with these frames.
func LookOf(id string, index int, first, final image.Image) Look {
	l := Look{ID: id, Index: index}
	l.see(0, first)
	l.see(1, final)
	return l
}
