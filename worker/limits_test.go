package worker

import (
	"testing"
	"time"
)

func TestPatience(t *testing.T) {
	k := kind{"g", "c", 20}
	const floor = time.Minute
	for _, test := range []struct {
		name       string
		chunks     []time.Duration
		deliveries int
		want       time.Duration
	}{
		{"nothing is known", nil, 1, 0},
		{"too little is known", []time.Duration{time.Second, time.Second}, 1, 0},
		{"quick ones", []time.Duration{time.Second, time.Second, 2 * time.Second}, 1, floor},
		{"slow ones", []time.Duration{10 * time.Second, 30 * time.Second, 20 * time.Second}, 1, 5 * time.Minute},
		{"the third delivery", []time.Duration{10 * time.Second, 30 * time.Second, 20 * time.Second}, 3, 20 * time.Minute},
		{"the hundredth", []time.Duration{time.Hour, time.Hour, time.Hour}, 100, 10240 * time.Hour},
	} {
		u := usage{kinds: map[kind]extremes{}}
		for _, wall := range test.chunks {
			u.add(k, extremes{chunks: 1, wall: wall})
		}
		if got := u.of(k).patience(floor, test.deliveries); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
		if got := u.of(kind{"g", "c", 5}).patience(floor, 1); got != 0 {
			t.Errorf("%s: another kind has %s", test.name, got)
		}
	}
}

func TestLimitsAreFilledIn(t *testing.T) {
	l := Limits{Files: 7}.Filled()
	if l.Files != 7 || l.Memory < 64<<20 || l.FreeDisk == 0 || l.Bytes == 0 || l.Patience == 0 {
		t.Errorf("%+v", l)
	}
	t.Setenv("OUTPUT_BUCKET", "b")
	t.Setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "2048")
	if c, err := ConfigFromEnv(); err != nil || c.Limits.Memory != 2<<30 {
		t.Errorf("%+v, %v", c, err)
	}
}
