package export

import (
	"crypto/sha256"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// defaultSplit is the one of an export without --split, as loaders call it.
const defaultSplit = "train"

// Splits says which split a sample is in. That depends on its fingerprint or its generator
// alone: the same puzzle is always in the same split, whatever else is exported.
type Splits struct {
	names      []string
	until      []float64       // upper bounds of the splits in [0, 1], if they are fractions
	generators map[string]int  // place of the split, if they are lists of generators; "*" are all others
	seen       map[[8]byte]int // split of each fingerprint, if they are lists of generators
}

var splitPattern = regexp.MustCompile(`^[A-Za-z0-9_]+$`) // the hub's rule is \w+(\.\w+)*

// ParseSplits reads a rule: train=0.9,test=0.1 by fingerprint, or train=*,test=maze+chess
// by generator. Without one everything is in the split train.
func ParseSplits(rule string) (*Splits, error) {
	s := &Splits{}
	if rule == "" {
		s.names, s.until = []string{defaultSplit}, []float64{1}
		return s, nil
	}
	total := 0.0
	for place, part := range strings.Split(rule, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		switch {
		case !ok || value == "":
			return nil, fmt.Errorf("%q must be NAME=FRACTION, NAME=GENERATOR+GENERATOR or NAME=*", part)
		case !splitPattern.MatchString(name):
			return nil, fmt.Errorf("the name %q may hold only letters, digits and '_'", name)
		case slices.Contains(s.names, name):
			return nil, fmt.Errorf("the split %s is there twice", name)
		}
		s.names = append(s.names, name)
		fraction, err := strconv.ParseFloat(value, 64)
		if err == nil && (!(fraction > 0) || fraction > 1) {
			return nil, fmt.Errorf("the fraction %s of %s must be above 0 and at most 1", value, name)
		}
		if err == nil {
			total += fraction
			s.until = append(s.until, total)
			continue
		}
		if s.generators == nil {
			s.generators, s.seen = map[string]int{}, map[[8]byte]int{}
		}
		for _, generator := range strings.Split(value, "+") {
			if _, twice := s.generators[generator]; twice {
				return nil, fmt.Errorf("%q is in two splits", generator)
			}
			s.generators[generator] = place
		}
	}
	if s.generators != nil && s.until != nil {
		return nil, fmt.Errorf("%q has fractions and generators: it must be one or the other", rule)
	}
	if s.until != nil && math.Abs(total-1) > 1e-6 {
		return nil, fmt.Errorf("the fractions of %q are %g in all, not 1", rule, total)
	}
	return s, nil
}

// Names are the splits in the order of the rule.
func (s *Splits) Names() []string { return s.names }

// checkGenerators refuses generators that are in no split, and splits of those that are not exported.
func (s *Splits) checkGenerators(names []string) error {
	for _, name := range names {
		if s.generators != nil && s.placeOf(name) < 0 {
			return fmt.Errorf("--split has no split for %s: NAME=* is the one for all others", name)
		}
	}
	for _, name := range sortedKeys(s.generators) {
		if name != "*" && !slices.Contains(names, name) {
			return fmt.Errorf("--split names %s, which is not exported", name)
		}
	}
	return nil
}

func (s *Splits) of(generator, fingerprint string) string { return s.At(generator, Place(fingerprint)) }

// placeOf returns the place of a generator's split, or -1.
func (s *Splits) placeOf(generator string) int {
	for _, name := range []string{generator, "*"} {
		if place, ok := s.generators[name]; ok {
			return place
		}
	}
	return -1
}

// check refuses a puzzle that is in another split, too. Fractions go by the puzzle.
func (s *Splits) check(generator, fingerprint string) error {
	if s.generators == nil {
		return nil
	}
	place, mark := s.placeOf(generator), markOf(fingerprint)
	if there, ok := s.seen[mark]; ok && there != place {
		return fmt.Errorf("a puzzle of %s (fingerprint %.40s) is in a generator of another split, too: no split by generator can keep them apart", generator, fingerprint)
	}
	s.seen[mark] = place
	return nil
}

// markOf stands for a fingerprint.
func markOf(fingerprint string) [8]byte {
	hash := sha256.Sum256([]byte(fingerprint))
	return [8]byte(hash[:8])
}
