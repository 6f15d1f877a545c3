package main

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestTheFirstComponentThatEndsIsTheFailure(t *testing.T) {
	reason := errors.New("no more")
	g := newGroup(2)
	stop := make(chan struct{})
	g.start("lasting", func() error { <-stop; return nil })
	g.start("failing", func() error { return reason })
	err := g.wait(context.Background())
	if !errors.Is(err, reason) || err.Error() != "failing: no more" {
		t.Errorf("got %v", err)
	}
	close(stop)
	g.drain(time.Minute)
	if g.running != 0 {
		t.Errorf("%d components are still counted", g.running)
	}
}

func TestAnEndThatNobodyAskedForIsAFailure(t *testing.T) {
	g := newGroup(1)
	g.start("quiet", func() error { return nil })
	if err := g.wait(context.Background()); !errors.Is(err, errStopped) {
		t.Errorf("got %v", err)
	}
}

func TestAnEndAfterTheSignalIsNoFailure(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	g := newGroup(1)
	g.start("scheduler", func() error { return errors.New("finished without leader elect") })
	if err := g.wait(ctx); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestDrainingIsBounded(t *testing.T) {
	g := newGroup(1)
	never := make(chan struct{})
	g.start("stuck", func() error { <-never; return nil })
	started := time.Now()
	g.drain(20 * time.Millisecond)
	if time.Since(started) > 5*time.Second {
		t.Error("the bound was not kept")
	}
	close(never)
}
