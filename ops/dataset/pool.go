package dataset

import (
	"fmt"
	"math"
)

// Pool is an estimate of how many different puzzles a generator has.
//
// It is the bias-corrected form of the estimator known as Chao1 (A. Chao,
// "Nonparametric estimation of the number of classes in a population",
// Scandinavian Journal of Statistics 11, 1984, 265-270): of n draws with d
// different ones, f1 seen once and f2 seen twice, d + f1(f1-1) / 2(f2+1). For a
// generator that draws its puzzles evenly it is unbiased; for one that prefers
// some it is a lower bound, and so a bound for what can be had at a bearable cost.
// The interval is the log-normal one of A. Chao, "Estimating the population size
// for capture-recapture data with unequal catchability", Biometrics 43, 1987,
// 783-791, with the variance of the bias-corrected form from the appendix of R. K.
// Colwell's EstimateS.
type Pool struct {
	Estimate int `json:"estimate"`
	Low      int `json:"low"`  // of the interval that holds it with a probability of 95 %
	High     int `json:"high"` //
	Drawn    int `json:"drawn"`
	Once     int `json:"once"` // puzzles that were drawn once
}

func (p Pool) String() string {
	if p.Low == p.High {
		return fmt.Sprintf("about %d", p.Estimate)
	}
	return fmt.Sprintf("about %d (95 %%: %d to %d)", p.Estimate, p.Low, p.High)
}

// Pool estimates from every draw for the range, those included that were replaced
// since.
func (v *View) Pool() Pool {
	times := map[puzzle]int32{}
	for _, d := range v.draws {
		times[d.puzzle]++
	}
	once, twice := 0, 0
	for _, n := range times {
		switch n {
		case 1:
			once++
		case 2:
			twice++
		}
	}
	return estimate(len(v.draws), len(times), once, twice)
}

func estimate(drawn, distinct, once, twice int) Pool {
	n, d, f1, f2 := float64(drawn), float64(distinct), float64(once), float64(twice)
	unseen := f1 * (f1 - 1) / (2 * (f2 + 1))
	p := Pool{Drawn: drawn, Once: once, Estimate: int(math.Round(d + unseen))}
	var variance float64
	switch {
	case f1 > 0 && f2 > 0:
		variance = f1*(f1-1)/(2*(f2+1)) + f1*(2*f1-1)*(2*f1-1)/(4*(f2+1)*(f2+1)) +
			f1*f1*f2*(f1-1)*(f1-1)/(4*math.Pow(f2+1, 4))
	case f1 > 0 && d+unseen > 0:
		variance = f1*(f1-1)/2 + f1*(2*f1-1)*(2*f1-1)/4 - math.Pow(f1, 4)/(4*(d+unseen))
	}
	if unseen > 0 && variance > 0 {
		k := math.Exp(1.96 * math.Sqrt(math.Log(1+variance/(unseen*unseen))))
		p.Low, p.High = int(math.Floor(d+unseen/k)), int(math.Ceil(min(d+unseen*k, math.MaxInt32)))
		return p
	}
	// Nothing, or a single puzzle, was seen just once: as good as all are known. What
	// is left is that each of some was missed n times.
	if d > 0 && n > 0 {
		missed := math.Exp(-n / d)
		variance = d * missed * (1 - missed)
	}
	p.Low, p.High = distinct, int(math.Ceil(d+f1+1.96*math.Sqrt(variance)))
	return p
}

// Verdict is whether a generator's duplicates can be replaced.
type Verdict string

// The verdicts.
const (
	Distinct  Verdict = "distinct"   // there are no duplicates
	GoOn      Verdict = "go_on"      // further draws will do it
	Exhausted Verdict = "exhausted"  // the generator has fewer puzzles than samples are wanted
	TooCostly Verdict = "too_costly" // it may have enough, but would have to draw too often
	Failed    Verdict = "failed"     // its repair tasks fail
)

// minDrawn is how many draws there must be before they show that a generator has
// no more: of three, all alike, nothing follows.
const minDrawn = 30

// judge decides what to do when some of wanted samples are duplicates. It gives the
// generator the benefit of the doubt: it goes by the upper end of the estimate.
// limit is how many draws in all are bearable.
func judge(p Pool, distinct, wanted, limit int) (v Verdict, draws float64) {
	high, left := float64(p.High), float64(wanted-distinct)
	if left <= 0 {
		return Distinct, float64(p.Drawn)
	}
	if p.Drawn < minDrawn {
		return GoOn, float64(p.Drawn) + left
	}
	if p.High < wanted {
		return Exhausted, math.Inf(1)
	}
	// Of a pool of N drawn evenly, the step from d to d+1 different ones takes
	// N/(N-d) draws. Never fewer than by the rate at which new ones come (I. J. Good,
	// "The population frequencies of species and the estimation of population
	// parameters", Biometrika 40, 1953, 237-264): f1/n, here with what chance may add.
	draws = float64(p.Drawn) + high*math.Log((high-float64(distinct)+0.5)/(high-float64(wanted)+0.5))
	once := float64(p.Once)
	rate := (once + 2*math.Sqrt(once) + 3) / float64(p.Drawn)
	draws = max(draws, float64(p.Drawn)+left/min(rate, 1))
	if draws > float64(limit) {
		return TooCostly, draws
	}
	return GoOn, draws
}
