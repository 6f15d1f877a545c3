package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/lease"
	corev1 "k8s.io/api/core/v1"
)

// What nodes tell one another stands in annotations of their Nodes, under the
// names that flannel uses, in its form.
const (
	annotationManaged = "flannel.alpha.coreos.com/kube-subnet-manager"
	annotationType    = "flannel.alpha.coreos.com/backend-type"
	annotationData    = "flannel.alpha.coreos.com/backend-data"
	annotationAddress = "flannel.alpha.coreos.com/public-ip"
)

// peer is another node, as far as its pods are to be reached.
type peer struct {
	subnet  netip.Prefix
	address netip.Addr
	// data is what the backend needs besides: vxlan's number and the hardware
	// address of the node's end.
	data string
	mac  string
}

// peers by their subnet: no two nodes have the same.
type peers map[netip.Prefix]peer

// choosePodCIDR is the IPv4 range that a node gives its pods addresses of.
func choosePodCIDR(node *corev1.Node, cluster netip.Prefix) (netip.Prefix, error) {
	cidrs, err := parsePodCIDRs(node.Spec.PodCIDRs, node.Spec.PodCIDR)
	switch {
	case err != nil:
		return netip.Prefix{}, err
	case len(cidrs) == 0:
		return netip.Prefix{}, errors.New("the Node has no pod CIDR yet")
	case len(cidrs) > 1 || !cidrs[0].Addr().Is4():
		return netip.Prefix{}, fmt.Errorf("pod CIDRs %v: the network between nodes is IPv4 only", cidrs)
	case cidrs[0].Bits() < cluster.Bits() || !cluster.Contains(cidrs[0].Addr()):
		return netip.Prefix{}, fmt.Errorf("pod CIDR %s is outside the cluster's %s", cidrs[0], cluster)
	}
	return cidrs[0].Masked(), nil
}

// chooseAddress is where other nodes reach this one.
func chooseAddress(node *corev1.Node, configured netip.Addr) (netip.Addr, error) {
	if configured.IsValid() {
		return configured, nil
	}
	for _, address := range node.Status.Addresses {
		parsed, err := netip.ParseAddr(address.Address)
		if address.Type == corev1.NodeInternalIP && err == nil && parsed.Is4() {
			return parsed, nil
		}
	}
	return netip.Addr{}, errors.New("the Node has no IPv4 InternalIP yet")
}

// planPeers reads the other nodes. Who has announced nothing yet is left out;
// what can't be right is refused with the reason. A range belongs to the
// oldest Node that claims it, so that nobody takes over another's traffic.
func planPeers(nodes []*corev1.Node, self string, own netip.Prefix, backend *BackendConfig) (peers, error) {
	nodes = slices.SortedFunc(slices.Values(nodes), func(a, b *corev1.Node) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	var refusals []error
	found := peers{}
	for _, node := range nodes {
		if node.Name == self || node.Annotations[annotationManaged] != "true" {
			continue
		}
		p, err := readPeer(node, backend)
		if err == nil && p.subnet.Overlaps(own) {
			err = fmt.Errorf("pod CIDR %s overlaps this node's %s", p.subnet, own)
		}
		for other := range found {
			if err == nil && p.subnet.Overlaps(other) {
				err = fmt.Errorf("pod CIDR %s overlaps %s of an older node", p.subnet, other)
			}
		}
		if err != nil {
			refusals = append(refusals, fmt.Errorf("node %s: %w", node.Name, err))
			continue
		}
		found[p.subnet] = p
	}
	return found, errors.Join(refusals...)
}

func readPeer(node *corev1.Node, backend *BackendConfig) (peer, error) {
	if kind := node.Annotations[annotationType]; kind != backend.Type {
		return peer{}, fmt.Errorf("its backend is %q, this node's %q", kind, backend.Type)
	}
	subnet, err := choosePodCIDR(node, backend.ClusterCIDR)
	if err != nil {
		return peer{}, err
	}
	address, err := netip.ParseAddr(node.Annotations[annotationAddress])
	if err != nil || !address.Is4() || !address.IsGlobalUnicast() {
		return peer{}, fmt.Errorf("its address %q is not one to send to", node.Annotations[annotationAddress])
	}
	p := peer{subnet: subnet, address: address, data: node.Annotations[annotationData]}
	if backend.Type == backendVXLAN {
		if p.mac, err = readMAC(p.data, backend.VNI); err != nil {
			return peer{}, err
		}
	}
	return p, nil
}

// readMAC finds the hardware address in what a vxlan backend announced.
func readMAC(data string, vni int) (string, error) {
	var end struct {
		VNI     int
		VtepMAC string
	}
	if err := json.Unmarshal([]byte(data), &end); err != nil {
		return "", fmt.Errorf("%s %q: %w", annotationData, data, err)
	}
	mac, err := net.ParseMAC(end.VtepMAC)
	if err != nil || len(mac) != 6 {
		return "", fmt.Errorf("%s %q has no hardware address", annotationData, data)
	}
	if end.VNI != vni {
		return "", fmt.Errorf("its vni is %d, this node's %d", end.VNI, vni)
	}
	return mac.String(), nil
}

// planEvents says how the backend comes from what it knows to what is wanted.
// Who leaves comes first: its range may have been given to another. A peer that
// only moved to another address is replaced in place, without a gap.
func planEvents(known, wanted peers, backend string) []lease.Event {
	var events []lease.Event
	for _, subnet := range sortedSubnets(known) {
		if now, ok := wanted[subnet]; !ok || now.mac != known[subnet].mac {
			events = append(events, lease.Event{Type: lease.EventRemoved, Lease: known[subnet].lease(backend)})
		}
	}
	for _, subnet := range sortedSubnets(wanted) {
		if known[subnet] != wanted[subnet] {
			events = append(events, lease.Event{Type: lease.EventAdded, Lease: wanted[subnet].lease(backend)})
		}
	}
	return events
}

func sortedSubnets(all peers) []netip.Prefix {
	return slices.SortedFunc(maps.Keys(all), func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
}

// lease is the peer in flannel's words.
func (p peer) lease(backend string) lease.Lease {
	l := lease.Lease{
		EnableIPv4: true,
		Subnet:     flannelNet(p.subnet),
		Attrs:      lease.LeaseAttrs{PublicIP: ip.FromIP(p.address.AsSlice()), BackendType: backend},
	}
	if p.mac != "" {
		l.Attrs.BackendData = json.RawMessage(p.data)
	}
	return l
}

func flannelNet(prefix netip.Prefix) ip.IP4Net {
	return ip.IP4Net{IP: ip.FromIP(prefix.Addr().AsSlice()), PrefixLen: uint(prefix.Bits())}
}
