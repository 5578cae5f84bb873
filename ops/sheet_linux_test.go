package main

import (
	"bytes"
	"fmt"
	pixels "image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// However many samples there are, and however large some of their pictures, they are
// drawn within 300 MB: five of those here have more pixels together.
func TestSheetsOfManySamples(t *testing.T) {
	if os.Getenv("SCALE") == "" {
		t.Skip("SCALE=1 runs it")
	}
	t.Parallel()
	dir := t.TempDir()
	makeGenerators(t, filepath.Join(dir, "generators"), "wide")
	source := filepath.Join(dir, "generators", "wide", "examples")
	for name, size := range map[string]pixels.Point{"small.png": {X: 500, Y: 200}, "large.png": {X: 3900, Y: 3900}} {
		var data bytes.Buffer
		must(t, png.Encode(&data, pixels.NewNRGBA(pixels.Rectangle{Max: size})))
		must(t, os.WriteFile(filepath.Join(source, name), data.Bytes(), 0o644))
	}
	// Without videos: of those, whose frames another process decodes, each takes two starts of ffmpeg.
	must(t, os.WriteFile(filepath.Join(dir, "generators", "catalog.yaml"), []byte("wide: {videoless: true}\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(source, "generate.py"), []byte(`
import argparse, os, shutil
p = argparse.ArgumentParser()
p.add_argument("--num-samples", type=int)
p.add_argument("--seed", type=int)
p.add_argument("--output")
a = p.parse_args()
here = os.path.dirname(os.path.abspath(__file__))
for i in range(a.num_samples):
    to = os.path.join(a.output, "wide_task", "wide_%04d" % i)
    os.makedirs(to)
    shutil.copyfile(os.path.join(here, "small.png" if i % 20 else "large.png"), os.path.join(to, "first_frame.png"))
    shutil.copyfile(os.path.join(here, "small.png"), os.path.join(to, "final_frame.png"))
    with open(os.path.join(to, "prompt.txt"), "w") as f:
        f.write("sample %d" % i)
`), 0o644))
	const samples, perSheet = 100, 25
	out, peak, err := measured(t, (&cloud{outputs: os.DevNull}).ops(t, dir, "generators", "run", "wide", "--samples",
		fmt.Sprint(samples), "--to", "look"))
	if err != nil || !strings.Contains(out, fmt.Sprintf("with contact-sheet.png to contact-sheet-%d.png",
		samples/perSheet)) {
		t.Fatalf("%v %.2000s", err, out)
	}
	if peak > 300_000_000 {
		t.Errorf("it took %d MB", peak/1_000_000)
	} else {
		t.Logf("%d MB", peak/1_000_000)
	}
	sheets, err := filepath.Glob(filepath.Join(dir, "look", "contact-sheet*.png"))
	if err != nil || len(sheets) != samples/perSheet {
		t.Errorf("%d sheets, %v", len(sheets), err)
	}
}
