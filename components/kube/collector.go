package main

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The garbage collector lets the heap grow by a percentage of what lives
// before it collects (https://go.dev/doc/gc-guide). A fixed percentage suits
// one load: a control plane that idles on a small machine keeps memory that it
// does not need for minutes, and one that works hard collects all the time. So
// the percentage follows the load: there is room for what is allocated within
// headroomSpan, and no more.
const (
	// headroomSpan is the time between two collections that is aimed at. One
	// costs 0.1 to 0.3 s of processor time with 100 MB alive.
	headroomSpan = 30 * time.Second
	// collectorInterval is how often the load is looked at.
	collectorInterval = 10 * time.Second
	// At percentMin a burst is met by a collection soon; percentMax is Go's own
	// default.
	percentMin, percentMax = 15, 100
	// percentStep is a change that is worth stopping the world for.
	percentStep = 10
	// startInterval is how often a start is looked at.
	startInterval = 500 * time.Millisecond
)

// choosePercent returns the percentage for a heap with that much alive and
// that much allocated per second, both in bytes.
func choosePercent(live uint64, allocatedPerSecond float64) int {
	if live == 0 {
		return percentMax
	}
	headroom := allocatedPerSecond * headroomSpan.Seconds()
	return min(max(int(headroom/float64(live)*100), percentMin), percentMax)
}

// isCrowded says whether so much lives that a start's memory limit would soon
// have it collected all the time: stacks and the runtime's own are a quarter.
func isCrowded(live uint64, limit int64) bool {
	return float64(live) > float64(limit)*0.7
}

// waitForStart returns when a start is over, which takes collectorInterval, or
// when it has become crowded.
func waitForStart(ctx context.Context, readLive func() uint64) {
	limit := debug.SetMemoryLimit(-1)
	ticker := time.NewTicker(startInterval)
	defer ticker.Stop()
	over := time.After(collectorInterval)
	for !isCrowded(readLive(), limit) {
		select {
		case <-ctx.Done():
			return
		case <-over:
			return
		case <-ticker.C:
		}
	}
}

// followLoad adjusts the collector until ctx ends. It leaves the start to what
// GOGC and GOMEMLIMIT gave: most of what a start allocates is soon garbage, so
// it is let lie until it is much, but not so long that what stays is scattered
// over many half-empty pages. Later the limit would make a process whose
// objects take more than that collect without end.
func followLoad(ctx context.Context) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	read := func() (live, allocated uint64) {
		metrics.Read(samples)
		return samples[0].Value.Uint64(), samples[1].Value.Uint64()
	}
	at := time.Now()
	_, before := read()
	waitForStart(ctx, func() uint64 { live, _ := read(); return live })
	debug.SetMemoryLimit(math.MaxInt64)
	ticker := time.NewTicker(collectorInterval)
	defer ticker.Stop()
	for current := math.MaxInt32; ctx.Err() == nil; {
		now := time.Now()
		live, allocated := read()
		percent := choosePercent(live, float64(allocated-before)/now.Sub(at).Seconds())
		at, before = now, allocated
		if percent <= current-percentStep || percent >= current+percentStep {
			lowered := percent < current
			current = percent
			debug.SetGCPercent(percent)
			if lowered {
				// What the higher percentage had kept goes back to the system now.
				debug.FreeOSMemory()
			}
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}
