package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/flannel-io/flannel/pkg/lease"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func testBackend(kind string) *BackendConfig {
	b := &BackendConfig{Type: kind, ClusterCIDR: netip.MustParsePrefix("10.1.0.0/16"), Kubeconfig: "/k"}
	b.complete()
	return b
}

// announced is a Node as another node's network part leaves it.
func announced(name, cidr, address string) *corev1.Node {
	n := node(name, cidr)
	n.Annotations = map[string]string{
		annotationManaged: "true", annotationType: backendVXLAN, annotationAddress: address,
		annotationData: `{"VNI":7443,"VtepMAC":"02:00:00:00:00:01"}`,
	}
	return n
}

var ownCIDR = netip.MustParsePrefix("10.1.0.0/24")

func TestOtherNodesArePeersOnceTheyAreAnnounced(t *testing.T) {
	silent := node("silent", "10.1.7.0/24")
	found, err := planPeers([]*corev1.Node{announced("self", "10.1.0.0/24", "192.0.2.1"), announced("n2", "10.1.2.0/24", "192.0.2.2"), silent},
		"self", ownCIDR, testBackend(backendVXLAN))
	if err != nil || len(found) != 1 {
		t.Fatalf("got %v, %v", found, err)
	}
	p := found[netip.MustParsePrefix("10.1.2.0/24")]
	if p.address.String() != "192.0.2.2" || p.mac != "02:00:00:00:00:01" {
		t.Errorf("got %+v", p)
	}
}

func TestWhatCannotBeRightIsRefusedWithTheNodesName(t *testing.T) {
	for reason, edit := range map[string]func(*corev1.Node){
		`its backend is "host-gw"`:  func(n *corev1.Node) { n.Annotations[annotationType] = backendHostGW },
		"outside the cluster's":     func(n *corev1.Node) { n.Spec.PodCIDRs = []string{"10.2.0.0/24"} },
		"overlaps this node's":      func(n *corev1.Node) { n.Spec.PodCIDRs = []string{"10.1.0.0/20"} },
		"IPv4 only":                 func(n *corev1.Node) { n.Spec.PodCIDRs = []string{"10.1.2.0/24", "fd01::/64"} },
		`its address "127.0.0.1"`:   func(n *corev1.Node) { n.Annotations[annotationAddress] = "127.0.0.1" },
		`its address ""`:            func(n *corev1.Node) { delete(n.Annotations, annotationAddress) },
		"its vni is 1, this node's": func(n *corev1.Node) { n.Annotations[annotationData] = `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}` },
		"has no hardware address":   func(n *corev1.Node) { n.Annotations[annotationData] = `{"VNI":7443}` },
		"unexpected end of JSON":    func(n *corev1.Node) { n.Annotations[annotationData] = `` },
		"the Node has no pod CIDR":  func(n *corev1.Node) { n.Spec.PodCIDRs = nil },
		`ParsePrefix("everything")`: func(n *corev1.Node) { n.Spec.PodCIDRs = []string{"everything"} },
	} {
		n := announced("bad", "10.1.2.0/24", "192.0.2.2")
		edit(n)
		found, err := planPeers([]*corev1.Node{n}, "self", ownCIDR, testBackend(backendVXLAN))
		if len(found) != 0 || err == nil || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), "node bad: ") {
			t.Errorf("%s: got %v, %v", reason, found, err)
		}
	}
}

func TestARangeBelongsToTheOldestNodeThatClaimsIt(t *testing.T) {
	thief := announced("a-thief", "10.1.2.0/23", "192.0.2.66")
	thief.CreationTimestamp = metav1.NewTime(time.Unix(200, 0))
	owner := announced("n2", "10.1.2.0/24", "192.0.2.2")
	owner.CreationTimestamp = metav1.NewTime(time.Unix(100, 0))
	found, err := planPeers([]*corev1.Node{thief, owner}, "self", ownCIDR, testBackend(backendVXLAN))
	if len(found) != 1 || found[netip.MustParsePrefix("10.1.2.0/24")].address.String() != "192.0.2.2" {
		t.Errorf("got %v", found)
	}
	if err == nil || !strings.Contains(err.Error(), "node a-thief: ") {
		t.Errorf("got %v", err)
	}
}

func testPeer(cidr, address, mac string) peer {
	return peer{subnet: netip.MustParsePrefix(cidr), address: netip.MustParseAddr(address), mac: mac, data: mac}
}

func peersOf(all ...peer) peers {
	found := peers{}
	for _, p := range all {
		found[p.subnet] = p
	}
	return found
}

func TestWhoLeavesComesBeforeWhoComes(t *testing.T) {
	stays := testPeer("10.1.1.0/24", "192.0.2.1", "m1")
	leaves := testPeer("10.1.9.0/24", "192.0.2.9", "m9")
	comes := testPeer("10.1.2.0/24", "192.0.2.2", "m2")
	moves, moved := testPeer("10.1.3.0/24", "192.0.2.3", "m3"), testPeer("10.1.3.0/24", "192.0.2.33", "m3")
	other, anew := testPeer("10.1.4.0/24", "192.0.2.4", "m4"), testPeer("10.1.4.0/24", "192.0.2.4", "m5")
	got := planEvents(peersOf(stays, leaves, moves, other), peersOf(stays, comes, moved, anew), backendVXLAN)
	expected := []struct {
		kind    lease.EventType
		subnet  string
		address string
	}{
		{lease.EventRemoved, "10.1.4.0/24", "192.0.2.4"},
		{lease.EventRemoved, "10.1.9.0/24", "192.0.2.9"},
		{lease.EventAdded, "10.1.2.0/24", "192.0.2.2"},
		{lease.EventAdded, "10.1.3.0/24", "192.0.2.33"},
		{lease.EventAdded, "10.1.4.0/24", "192.0.2.4"},
	}
	if len(got) != len(expected) {
		t.Fatalf("got %d events: %+v", len(got), got)
	}
	for i, e := range expected {
		l := got[i].Lease
		if got[i].Type != e.kind || l.Subnet.String() != e.subnet || l.Attrs.PublicIP.String() != e.address || l.Attrs.BackendType != backendVXLAN {
			t.Errorf("%d: got %v %+v", i, got[i].Type, l)
		}
	}
}

func TestANodesAddressIsTheConfiguredOneOrItsInternalIP(t *testing.T) {
	n := node("n1")
	n.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: "n1"}, {Type: corev1.NodeInternalIP, Address: "fd00::1"},
		{Type: corev1.NodeInternalIP, Address: "192.0.2.7"},
	}
	if address, err := chooseAddress(n, netip.Addr{}); err != nil || address.String() != "192.0.2.7" {
		t.Errorf("got %s, %v", address, err)
	}
	if address, err := chooseAddress(n, netip.MustParseAddr("192.0.2.8")); err != nil || address.String() != "192.0.2.8" {
		t.Errorf("got %s, %v", address, err)
	}
	if address, err := chooseAddress(node("n1"), netip.Addr{}); err == nil {
		t.Errorf("got %s", address)
	}
}

func TestOnlyWhatTheNetworkNeedsOfANodeIsKept(t *testing.T) {
	n := announced("n1", "10.1.2.0/24", "192.0.2.2")
	n.Annotations["other"], n.Labels = "x", map[string]string{"a": "b"}
	n.Status.Images = make([]corev1.ContainerImage, 3)
	kept, err := keepNetwork(n)
	k := kept.(*corev1.Node)
	if err != nil || len(k.Annotations) != 4 || k.Labels != nil || k.Status.Images != nil || k.Spec.PodCIDRs[0] != "10.1.2.0/24" {
		t.Errorf("got %+v, %v", k, err)
	}
}
