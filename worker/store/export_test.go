package store

import "testing"

// SetParts makes parts grow early in a test.
func SetParts(t *testing.T, steady, every int) {
	s, e := steadyParts, doubleEvery
	t.Cleanup(func() { steadyParts, doubleEvery = s, e })
	steadyParts, doubleEvery = steady, every
}

// Parts returns how many parts keep their size, and after how many more it doubles.
func Parts() (steady, every int) { return steadyParts, doubleEvery }
