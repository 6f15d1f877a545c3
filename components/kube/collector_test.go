package main

import (
	"context"
	"runtime/debug"
	"testing"
	"time"
)

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

func TestACrowdedStartIsOverEarly(t *testing.T) {
	const mb = 1 << 20
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(130 * mb))
	live := uint64(60 * mb)
	began := time.Now()
	waitForStart(t.Context(), func() uint64 { live += 20 * mb; return live })
	if took := time.Since(began); took > collectorInterval/2 {
		t.Errorf("it took %s", took)
	}
	if live != 100*mb {
		t.Errorf("it ended with %d MiB alive, want 100", live/mb)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	waitForStart(ended, func() uint64 { return 0 })
}
