package main

import "testing"

func stateOf(backend string, all ...peer) kernelState {
	state := kernelState{}
	for _, p := range all {
		for _, entry := range planEntries(p, backend) {
			state[entry] = func() error { return nil }
		}
	}
	return state
}

func TestWhatBelongsToNoNodeIsStale(t *testing.T) {
	here, gone := testPeer("10.1.2.0/24", "192.0.2.2", "m2"), testPeer("10.1.9.0/24", "192.0.2.9", "m9")
	for backend, entries := range map[string]int{backendVXLAN: 3, backendHostGW: 1} {
		stale, incomplete := planRepair(stateOf(backend, here, gone), peers{}, peersOf(here), backend)
		if len(stale) != entries || len(incomplete) != 0 {
			t.Errorf("%s: got %v, %v", backend, stale, incomplete)
		}
	}
}

func TestWhatTheBackendIsAboutToChangeIsLeftToIt(t *testing.T) {
	before, after := testPeer("10.1.2.0/24", "192.0.2.2", "m2"), testPeer("10.1.2.0/24", "192.0.2.22", "m2")
	leaves := testPeer("10.1.9.0/24", "192.0.2.9", "m9")
	state := stateOf(backendVXLAN, before, leaves)
	stale, incomplete := planRepair(state, peersOf(before, leaves), peersOf(after), backendVXLAN)
	if len(stale) != 0 || len(incomplete) != 0 {
		t.Errorf("got %v, %v", stale, incomplete)
	}
}

func TestAPeerThatIsNotWhollyThereIsIncomplete(t *testing.T) {
	p, q := testPeer("10.1.2.0/24", "192.0.2.2", "m2"), testPeer("10.1.3.0/24", "192.0.2.3", "m3")
	for _, missing := range planEntries(p, backendVXLAN) {
		state := stateOf(backendVXLAN, p, q)
		delete(state, missing)
		stale, incomplete := planRepair(state, peersOf(p, q), peersOf(p, q), backendVXLAN)
		if len(stale) != 0 || len(incomplete) != 1 || incomplete[0] != p {
			t.Errorf("without %s: got %v, %v", missing.kind, stale, incomplete)
		}
	}
}
