package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"
)

// errStopped is what a component amounts to that ended without being asked.
var errStopped = errors.New("ended without being asked to")

// group runs components beside one another in one process. They share their
// fate: the first that ends before it is asked to, ends the process.
type group struct {
	running int
	exits   chan exit
}

type exit struct {
	name string
	err  error
}

// newGroup makes room for the exits of that many components, so that none of
// them ever blocks on reporting.
func newGroup(components int) *group {
	return &group{exits: make(chan exit, components)}
}

// start runs one component in the background.
func (g *group) start(name string, component func() error) {
	g.running++
	klog.InfoS("Starting component", "component", name)
	go func() { g.exits <- exit{name: name, err: component()} }()
}

// wait returns nil when ctx ends and the failure when a component ends first.
func (g *group) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case e := <-g.exits:
		g.running--
		if ctx.Err() != nil {
			return nil
		}
		return e.failure()
	}
}

// drain waits until all components have ended, but no longer than the bound.
func (g *group) drain(bound time.Duration) {
	deadline := time.After(bound)
	for g.running > 0 {
		select {
		case e := <-g.exits:
			g.running--
			klog.InfoS("Component stopped", "component", e.name)
		case <-deadline:
			klog.InfoS("Components still running at the end of the stop time", "count", g.running)
			return
		}
	}
}

func (e exit) failure() error {
	if e.err == nil {
		return fmt.Errorf("%s: %w", e.name, errStopped)
	}
	return fmt.Errorf("%s: %w", e.name, e.err)
}
