package sample

import "bytes"

// Describe checks the structure of a file, as Collect does, and returns its media facts. The
// error is what is wrong with it.
func Describe(name string, file []byte) (Media, error) {
	return checkFile(name, bytes.NewReader(file), int64(len(file)), nil)
}
