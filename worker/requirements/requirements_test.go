package requirements

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/generator/generatortest"
)

func TestRequirements(t *testing.T) {
	dir := t.TempDir()
	generatortest.Write(t, filepath.Join(dir, "requirements.txt"),
		"\ufeff# header\r\nNumPy == 1.26.4   # pinned\r\n-r more/other.txt\n--extra-index-url https://example.invalid/simple\nx>=1; python_version < \"3.12\"\n./wheels/y.whl[all]\n-e pkg\n-c limits.txt\nlong==1 \\\n  --hash=sha256:00\nz @ https://example.invalid/z.whl#egg=z\n")
	generatortest.Write(t, filepath.Join(dir, "more", "other.txt"), "pillow\n--requirement=third.txt")
	generatortest.Write(t, filepath.Join(dir, "more", "third.txt"), "-f ../wheels\n")
	got, err := readRequirements(dir, File, 0)
	want := []string{"NumPy == 1.26.4", "pillow", "-f " + dir + "/wheels",
		"--extra-index-url https://example.invalid/simple", `x>=1; python_version < "3.12"`,
		dir + "/wheels/y.whl[all]", "-e " + dir + "/pkg", "-c " + dir + "/limits.txt", "long==1    --hash=sha256:00",
		"z @ https://example.invalid/z.whl#egg=z"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q, %v\nwant %q", got, err, want)
	}
}

func TestRequirementsRefused(t *testing.T) {
	for _, line := range []string{"-r ../other.txt", "-r/etc/passwd", "--requirement=../x", "-c ../c.txt", "-e ..",
		"-e /srv/pkg", "../pkg", "..", "/opt/x.whl", "-f ..",
		"file:///etc", "x @ file:///etc/x.whl", "x@file:../x.whl", "git+file:///srv/x", "./link/pkg", "-r link/other.txt",
		"-r requirements.txt"} {
		t.Run(line, func(t *testing.T) {
			dir, outside := t.TempDir(), t.TempDir()
			generatortest.Write(t, filepath.Join(outside, "pkg", "setup.py"), "")
			generatortest.Write(t, filepath.Join(outside, "other.txt"), "")
			if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
				t.Fatal(err)
			}
			generatortest.Write(t, filepath.Join(dir, File), line+"\n")
			if got, err := readRequirements(dir, File, 0); err == nil {
				t.Errorf("accepted as %q", got)
			}
		})
	}
}

func TestNormalise(t *testing.T) {
	same := [][]string{
		{"Pillow==10.4.0", "opencv_python==4.10.0.84", "x >= 1 ; python_version < '3.12'"},
		{"x>=1; python_version  < '3.12'", "opencv-python == 4.10.0.84", "pillow ==10.4.0", "pillow==10.4.0"},
	}
	if a, b := Normalise(same[0], State), Normalise(same[1], State); !reflect.DeepEqual(a, b) {
		t.Errorf("%q\n%q", a, b)
	}
	if a, b := Normalise([]string{"a==1"}, State), Normalise([]string{"a==2"}, State); reflect.DeepEqual(a, b) {
		t.Errorf("both %q", a)
	}
	wheel := filepath.Join(t.TempDir(), "x.whl")
	generatortest.Write(t, wheel, "1")
	a := Normalise([]string{wheel}, State)
	generatortest.Write(t, wheel, "12")
	if b := Normalise([]string{wheel}, State); reflect.DeepEqual(a, b) {
		t.Errorf("a changed wheel is the same: %q", a)
	}
}

func TestPythons(t *testing.T) {
	for said, want := range map[string]string{"": "", ">=3.8": "", ">=3.11": "", "==3.12.*": "==3.12.*",
		">=3.8,<3.13": ">=3.8,<3.13", "!=3.12.*": "!=3.12.*"} {
		if got, err := Pythons(said); got != want || err != nil {
			t.Errorf("%q is %q, %v, want %q", said, got, err, want)
		}
	}
	for _, wrong := range []string{"<3.11", "three", "==2.7"} {
		if got, err := Pythons(wrong); err == nil {
			t.Errorf("%q is %q", wrong, got)
		}
	}
}
