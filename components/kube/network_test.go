package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func testWriter(t *testing.T) *networkWriter {
	t.Helper()
	network := testNetwork()
	network.ConfPath = filepath.Join(t.TempDir(), "net.d", "10-skiff.conflist")
	return &networkWriter{network: network, nodeName: "n1"}
}

func node(name string, cidrs ...string) *corev1.Node {
	n := &corev1.Node{}
	n.Name, n.Spec.PodCIDRs = name, cidrs
	return n
}

func TestNothingIsWrittenBeforeTheNodeHasAPodCIDR(t *testing.T) {
	w := testWriter(t)
	w.observe(node("n1"))
	w.observe(node("other", "10.1.9.0/24"))
	if _, err := os.Stat(w.network.ConfPath); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}

func TestTheConflistFollowsTheNode(t *testing.T) {
	w := testWriter(t)
	for _, cidr := range []string{"10.1.0.0/24", "10.1.7.0/24"} {
		w.observe(node("n1", cidr))
		data, err := os.ReadFile(w.network.ConfPath)
		if err != nil || !strings.Contains(string(data), cidr) {
			t.Errorf("%s: got %v\n%s", cidr, err, data)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(w.network.ConfPath))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestAnEqualConflistIsNotWrittenAgain(t *testing.T) {
	w := testWriter(t)
	w.observe(node("n1", "10.1.0.0/24"))
	before, err := os.Stat(w.network.ConfPath)
	if err != nil {
		t.Fatal(err)
	}
	w.observe(node("n1", "10.1.0.0/24"))
	after, err := os.Stat(w.network.ConfPath)
	if err != nil || !os.SameFile(before, after) {
		t.Error("the file was replaced")
	}
}

func TestOnlyThePodCIDRsOfANodeAreKept(t *testing.T) {
	n := node("n1", "10.1.0.0/24")
	n.Status.Images = make([]corev1.ContainerImage, 3)
	kept, err := keepPodCIDRs(n)
	if err != nil {
		t.Fatal(err)
	}
	if k := kept.(*corev1.Node); len(k.Status.Images) != 0 || k.Spec.PodCIDRs[0] != "10.1.0.0/24" {
		t.Errorf("got %+v", k)
	}
}

func TestTheNodeIsCalledWhatTheKubeletSays(t *testing.T) {
	name, err := nodeName([]string{"--hostname-override= Node-1 "})
	if err != nil || name != "node-1" {
		t.Errorf("got %q, %v", name, err)
	}
}
