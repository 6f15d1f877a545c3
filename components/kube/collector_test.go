package main

import "testing"

func TestCollectorFollowsTheLoad(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		what               string
		live               uint64
		allocatedPerSecond float64
		percent            int
	}{
		{"an idle control plane keeps little", 100 * mb, 0.3 * mb, percentMin},
		{"some work gets room for half a minute", 100 * mb, 2 * mb, 60},
		{"hard work is bounded by what lives", 100 * mb, 50 * mb, percentMax},
		{"before the first collection nothing is known", 0, 5 * mb, percentMax},
	} {
		if percent := choosePercent(c.live, c.allocatedPerSecond); percent != c.percent {
			t.Errorf("%s: %d, want %d", c.what, percent, c.percent)
		}
	}
}
