package main

import (
	"testing"
	"time"
)

func TestGracePeriodIsThePodsOwnWithinTheBound(t *testing.T) {
	for _, c := range []struct {
		annotation string
		want       int64
	}{
		{"5", 5}, {"0", 0}, {"-3", 0}, {"600", 30}, {"", 30}, {"soon", 30},
	} {
		got := gracePeriod(map[string]string{gracePeriodAnnotation: c.annotation}, 30*time.Second)
		if got != c.want {
			t.Errorf("grace period %q: got %d, want %d", c.annotation, got, c.want)
		}
	}
}
