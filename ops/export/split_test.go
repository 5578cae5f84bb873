package export

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseSplits(t *testing.T) {
	for rule, want := range map[string]string{
		"":                            "",
		"train=0.9,test=0.1":          "",
		"a=0.3,b=0.3,c=0.4":           "",
		"train=*,test=maze+chess":     "",
		"train=0.9":                   "are 0.9 in all, not 1",
		"train=0.9,test=0.2":          "are 1.1 in all, not 1",
		"train=0.9,train=0.1":         "the split train is there twice",
		"train=1,test=0":              "the fraction 0 of test must be above 0 and at most 1",
		"train=NaN,test=1":            "the fraction NaN of train must be",
		"train":                       `"train" must be NAME=FRACTION`,
		"train=0.5,test=maze":         "has fractions and generators",
		"a=maze,b=maze":               `"maze" is in two splits`,
		"a=*,b=*":                     `"*" is in two splits`,
		"a/b=1":                       `the name "a/b" may hold only`,
		"train=0.9,test=0.1,":         `"" must be NAME=FRACTION`,
		"train=0.999999999,test=1e-9": "",
	} {
		_, err := ParseSplits(rule)
		if got := fmt.Sprint(err); (want == "") != (err == nil) || !strings.Contains(got, want) && want != "" {
			t.Errorf("%q: %v, want %q", rule, err, want)
		}
	}
}

// These places were calculated with Python: int.from_bytes(sha256(b"split " + fingerprint).digest()[:8], "big") >> 11,
// over 2**53.
func TestPlaceOfFingerprint(t *testing.T) {
	for fingerprint, want := range map[string]float64{
		"":                      0.23719023856363697,
		"maze-0":                0.17017197737017276,
		"größe 猫":               0.9006862814698489,
		strings.Repeat("a", 64): 0.5062502601345354,
	} {
		if got := Place(fingerprint); got != want {
			t.Errorf("%q: %v, not %v", fingerprint, got, want)
		}
	}
}

// The same puzzle is in the same split whatever generator has it, and the splits have their
// fractions of many.
func TestSplitsOfFingerprints(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		percent := rapid.IntRange(1, 99).Draw(t, "percent")
		rule := fmt.Sprintf("train=%g,test=%g", float64(percent)/100, float64(100-percent)/100)
		s, err := ParseSplits(rule)
		if err != nil {
			t.Fatal(err)
		}
		salt := rapid.String().Draw(t, "salt")
		const n = 2000
		train := 0
		for i := range n {
			fingerprint := fmt.Sprint(salt, i)
			a, b := s.of("maze", fingerprint), s.of("chess", fingerprint)
			if a != b {
				t.Fatalf("%q is in %s and in %s", fingerprint, a, b)
			}
			if a == "train" {
				train++
			}
		}
		share, want := float64(train)/n, float64(percent)/100
		if math.Abs(share-want) > 6*math.Sqrt(want*(1-want)/n) {
			t.Errorf("%s: %.3f are in train", rule, share)
		}
	})
}

// Split by generator: a puzzle that two generators of different splits have is refused.
func TestSplitsOfGenerators(t *testing.T) {
	s, err := ParseSplits("train=*,test=maze")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ generator, fingerprint, split, err string }{
		{"maze", "a", "test", ""},
		{"chess", "b", "train", ""},
		{"sudoku", "b", "train", ""},
		{"maze", "a", "test", ""},
		{"chess", "a", "train", "(fingerprint a) is in a generator of another split, too"},
	} {
		split, err := s.of(x.generator, x.fingerprint), s.check(x.generator, x.fingerprint)
		if split != x.split || (err != nil) != (x.err != "") || err != nil && !strings.Contains(err.Error(), x.err) {
			t.Errorf("%+v: %s, %v", x, split, err)
		}
	}
	if err := s.checkGenerators([]string{"chess"}); err == nil ||
		err.Error() != "--split names maze, which is not exported" {
		t.Error(err)
	}
	s, _ = ParseSplits("test=maze")
	if err := s.checkGenerators([]string{"chess", "maze"}); err == nil ||
		!strings.Contains(err.Error(), "no split for chess") {
		t.Error(err)
	}
}
