package infra

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// ignoreFiles say what the function's image and the fleet's are built from.
var ignoreFiles = []string{".dockerignore", "deploy/Dockerfile.dockerignore"}

// checkSources refuses links that point to nothing, at which Pulumi's Docker provider stops, and, unless it is a dry
// run, sets the modes of files to those of git's: the provider counts modes, and the umask of whoever clones decides on
// them, so each member of a team would build another image.
func checkSources(root, ignoreFile string, dry bool) error {
	f, err := os.Open(filepath.Join(root, ignoreFile))
	if err != nil {
		return fmt.Errorf("what the image is built from cannot be read: %w", err)
	}
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil {
		return fmt.Errorf("%s cannot be read: %w", f.Name(), err)
	}
	unused, err := patternmatcher.New(patterns)
	if err != nil {
		return fmt.Errorf("%s cannot be read: %w", f.Name(), err)
	}
	for _, pattern := range patterns {
		source, ok := strings.CutPrefix(pattern, "!")
		if !ok {
			continue
		}
		err := filepath.WalkDir(filepath.Join(root, source), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				if os.IsNotExist(err) && d == nil { // Docker refuses it where it is needed
					return nil
				}
				return err
			}
			relative, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			skip, err := unused.MatchesOrParentMatches(relative)
			if err != nil || d.IsDir() {
				if skip {
					return filepath.SkipDir
				}
				return err
			}
			if skip {
				return nil
			}
			info, err := os.Stat(path)
			if err != nil {
				if d.Type()&fs.ModeSymlink != 0 {
					return fmt.Errorf("the link %s points to nothing, so the image cannot be built: remove it, or make what it points to",
						path)
				}
				return err
			}
			mode := fs.FileMode(0o644)
			if info.Mode()&0o100 != 0 {
				mode = 0o755
			}
			if dry || !d.Type().IsRegular() || info.Mode().Perm() == mode {
				return nil
			}
			if err := os.Chmod(path, mode); err != nil {
				return fmt.Errorf("the image depends on the modes of its files, and this one's cannot be set: %w", err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
