package catalogue

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/atomicfile"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator"
)

// Pin writes the commit of a generator into the catalogue of the generators'
// folder. A name that it does not have yet is added at the end, with the repository
// and the licence of e. Nothing else in the file changes by a byte: no comment, no
// order, no empty line. The file is read anew and replaced in one step.
func Pin(root, name string, e generator.Entry) error {
	path := filepath.Join(root, generator.Catalogue)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	want, err := generator.ParseCatalogue(path, text)
	if err != nil {
		return err
	}
	if want == nil {
		want = map[string]generator.Entry{}
	}
	if old, there := want[name]; there {
		old.Commit = e.Commit
		want[name] = old
		text, err = setCommit(text, name, e.Commit)
	} else {
		e = generator.Entry{Repository: e.Repository, Commit: e.Commit, Licence: e.Licence}
		want[name] = e
		text, err = appendEntry(text, name, e)
	}
	if err != nil {
		return fmt.Errorf("pin %s in %s: %w", name, path, err)
	}
	// The text was changed in place: this proves that it says what it should.
	got, err := generator.ParseCatalogue(path, text)
	if err != nil || !reflect.DeepEqual(got, want) {
		return fmt.Errorf("pin %s in %s: its entry is written in a way that cannot be edited: set its commit to %s by hand",
			name, path, e.Commit)
	}
	return atomicfile.Write(path, text)
}

// value returns the value of a key of a mapping, or nil.
func value(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// setCommit replaces the commit of an entry, or puts one behind its repository.
func setCommit(text []byte, name, commit string) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	entry := value(document.Content[0], name)
	if entry.Kind == yaml.AliasNode {
		return nil, errors.New("its entry is that of another: give it one of its own")
	}
	if old := value(entry, "commit"); old != nil {
		start, end, err := span(text, old)
		if err != nil {
			return nil, err
		}
		return splice(text, start, end, commit), nil
	}
	repository := value(entry, "repository")
	if repository == nil {
		return nil, errors.New("its entry has no repository of its own")
	}
	start, end, err := span(text, repository)
	if err != nil {
		return nil, err
	}
	if entry.Style&yaml.FlowStyle != 0 {
		return splice(text, end, end, ", commit: "+commit), nil
	}
	// A line of its own, as deep as the one above; that may end with a comment.
	line := bytes.LastIndexByte(text[:start], '\n') + 1
	indent := text[line : line+len(text[line:])-len(bytes.TrimLeft(text[line:], " "))]
	if next := bytes.IndexByte(text[end:], '\n'); next >= 0 {
		return splice(text, end+next+1, end+next+1, string(indent)+"commit: "+commit+"\n"), nil
	}
	return splice(text, len(text), len(text), "\n"+string(indent)+"commit: "+commit+"\n"), nil
}

// span finds the bytes of a scalar of one line.
func span(text []byte, scalar *yaml.Node) (start, end int, err error) {
	for range scalar.Line - 1 {
		start += bytes.IndexByte(text[start:], '\n') + 1
	}
	line, _, _ := bytes.Cut(text[start:], []byte{'\n'})
	if runes := []rune(string(line)); scalar.Column-1 <= len(runes) { // columns are counted in characters
		start += len(string(runes[:scalar.Column-1]))
	}
	quote := ""
	switch scalar.Style &^ yaml.TaggedStyle {
	case yaml.DoubleQuotedStyle:
		quote = `"`
	case yaml.SingleQuotedStyle:
		quote = `'`
	}
	written := quote + scalar.Value + quote
	if !bytes.HasPrefix(text[start:], []byte(written)) {
		return 0, 0, fmt.Errorf("line %d is written in a way that cannot be edited", scalar.Line)
	}
	return start, start + len(written), nil
}

func splice(text []byte, start, end int, by string) []byte {
	return bytes.Join([][]byte{text[:start], text[end:]}, []byte(by))
}

// appendEntry adds an entry in block style at the end.
func appendEntry(text []byte, name string, e generator.Entry) ([]byte, error) {
	var entry yaml.Node
	for _, pair := range [][2]string{{"repository", e.Repository}, {"commit", e.Commit}, {"licence", e.Licence}} {
		if pair[1] != "" {
			var key, value yaml.Node
			key.SetString(pair[0])
			value.SetString(pair[1])
			entry.Content = append(entry.Content, &key, &value)
		}
	}
	entry.Kind = yaml.MappingNode
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(map[string]*yaml.Node{name: &entry}); err != nil {
		return nil, err
	}
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, '\n')
	}
	return append(text, strings.TrimLeft(b.String(), "\n")...), nil
}
