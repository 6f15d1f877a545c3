package main

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
)

// kernelEntry is one thing that the kernel must know of a peer. Only the
// fields that its kind needs are set, so that two entries can be compared.
type kernelEntry struct {
	kind entryKind
	// subnet is what a route leads to.
	subnet netip.Prefix
	// address is a route's next hop, who a hardware address belongs to, or the
	// node that frames for it are sent to.
	address netip.Addr
	mac     string
}

type entryKind string

const (
	routeEntry      entryKind = "route"
	neighbourEntry  entryKind = "neighbour"
	forwardingEntry entryKind = "forwarding"
)

// kernelState maps what is there to its removal.
type kernelState map[kernelEntry]func() error

// planEntries is what a backend of flannel makes for one peer.
func planEntries(p peer, backend string) []kernelEntry {
	if backend == backendHostGW {
		return []kernelEntry{{kind: routeEntry, subnet: p.subnet, address: p.address}}
	}
	end := p.subnet.Addr()
	return []kernelEntry{
		{kind: routeEntry, subnet: p.subnet, address: end},
		{kind: neighbourEntry, address: end, mac: p.mac},
		{kind: forwardingEntry, address: p.address, mac: p.mac},
	}
}

// planRepair compares the kernel with the peers. What belongs to none, known or
// wanted, is stale: a node that was removed while nobody watched. A peer that
// the backend was told of and that is not wholly there is incomplete.
func planRepair(present kernelState, known, wanted peers, backend string) (stale []kernelEntry, incomplete []peer) {
	belongs := map[kernelEntry]bool{}
	for _, all := range []peers{known, wanted} {
		for _, p := range all {
			for _, entry := range planEntries(p, backend) {
				belongs[entry] = true
			}
		}
	}
	for entry := range present {
		if !belongs[entry] {
			stale = append(stale, entry)
		}
	}
	for _, subnet := range sortedSubnets(known) {
		p := known[subnet]
		if p != wanted[subnet] {
			continue
		}
		for _, entry := range planEntries(p, backend) {
			if present[entry] == nil {
				incomplete = append(incomplete, p)
				break
			}
		}
	}
	return stale, incomplete
}

// readKernel lists what is on the link towards other nodes. With vxlan all of
// that link is ours. With host-gw it is the routes by way of a neighbour to
// ranges within the cluster's network.
func readKernel(link int, backend *BackendConfig) (kernelState, error) {
	state := kernelState{}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{LinkIndex: link}, netlink.RT_FILTER_OIF)
	if err != nil {
		return nil, fmt.Errorf("cannot list routes: %w", err)
	}
	for _, route := range routes {
		subnet, ok := flatPrefix(route)
		gateway, isVia := netip.AddrFromSlice(route.Gw)
		if !ok || !isVia || !backend.ClusterCIDR.Contains(subnet.Addr()) || subnet.Bits() < backend.ClusterCIDR.Bits() {
			continue
		}
		entry := kernelEntry{kind: routeEntry, subnet: subnet, address: gateway.Unmap()}
		state[entry] = func() error { return netlink.RouteDel(&route) }
	}
	if backend.Type == backendHostGW {
		return state, nil
	}
	for kind, family := range map[entryKind]int{neighbourEntry: netlink.FAMILY_V4, forwardingEntry: syscall.AF_BRIDGE} {
		neighbours, err := netlink.NeighList(link, family)
		if err != nil {
			return nil, fmt.Errorf("cannot list %s entries: %w", kind, err)
		}
		for _, neighbour := range neighbours {
			address, ok := netip.AddrFromSlice(neighbour.IP)
			if !ok || neighbour.State&netlink.NUD_PERMANENT == 0 {
				continue
			}
			neighbour.Family = family
			entry := kernelEntry{kind: kind, address: address.Unmap(), mac: neighbour.HardwareAddr.String()}
			state[entry] = func() error { return netlink.NeighDel(&neighbour) }
		}
	}
	return state, nil
}

func flatPrefix(route netlink.Route) (netip.Prefix, bool) {
	if route.Dst == nil {
		return netip.Prefix{}, false
	}
	address, ok := netip.AddrFromSlice(route.Dst.IP)
	bits, _ := route.Dst.Mask.Size()
	return netip.PrefixFrom(address.Unmap(), bits), ok
}

// remove takes entries away; one that has gone meanwhile is no failure.
func (s kernelState) remove(stale []kernelEntry) error {
	var failures []error
	for _, entry := range stale {
		if err := s[entry](); err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.ENOENT) {
			failures = append(failures, fmt.Errorf("cannot remove %s of %s %s: %w", entry.kind, entry.address, entry.mac, err))
		}
	}
	return errors.Join(failures...)
}
