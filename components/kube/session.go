package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/flannel-io/flannel/pkg/backend"
	"github.com/flannel-io/flannel/pkg/backend/hostgw"
	"github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/vishvananda/netlink"
	"k8s.io/klog/v2"
)

// backendStopBound is for a backend to let go when the node has moved.
const backendStopBound = 2 * time.Second

var errLinkLost = errors.New("the link towards other nodes was taken away")

// serve runs the backend for one place: nil when the node has moved or ctx has
// ended. What is in the kernel already is taken over as it is.
func (n *nodeNetwork) serve(ctx context.Context, at place) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	leases := newLeases(n, at)
	network, err := n.register(ctx, leases, at)
	if err != nil {
		return fmt.Errorf("backend %s on %s: %w", n.backend.Type, at.link, err)
	}
	if err := ensureForwarding(); err != nil {
		return err
	}
	if err := applyMasquerade(ctx, n.backend, network.Lease()); err != nil {
		return err
	}
	link, err := n.towardsOthers(at)
	if err != nil {
		return err
	}
	if err := n.ensureMTU(link, network.MTU()); err != nil {
		return err
	}
	if err := n.removeStale(leases, link); err != nil {
		return err
	}
	if err := n.writer.write([]netip.Prefix{at.podCIDR}, network.MTU()); err != nil {
		return fmt.Errorf("pod network configuration %s: %w", n.writer.network.ConfPath, err)
	}
	klog.InfoS("Network between nodes is up", "backend", n.backend.Type, "address", at.address,
		"link", at.link, "podCIDR", at.podCIDR, "mtu", network.MTU())

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		network.Run(ctx)
	}()
	err = n.follow(ctx, at, leases, link, ended)
	stop()
	select {
	case <-ended:
	case <-time.After(backendStopBound):
		klog.InfoS("Backend still runs at the end of its stop time", "backend", n.backend.Type)
	}
	return err
}

// register has the backend make its link and announce the node.
func (n *nodeNetwork) register(ctx context.Context, leases *leases, at place) (backend.Network, error) {
	address := net.IP(at.address.AsSlice())
	outside := &backend.ExternalInterface{
		Iface:     &net.Interface{Index: at.index, Name: at.link, MTU: at.mtu},
		IfaceName: at.link, IfaceAddr: address, ExtAddr: address,
	}
	create := vxlan.New
	if n.backend.Type == backendHostGW {
		create = hostgw.New
	}
	chosen, err := create(leases, outside)
	if err != nil {
		return nil, err
	}
	config, err := leases.GetNetworkConfig(ctx)
	if err != nil {
		return nil, err
	}
	return chosen.RegisterNetwork(ctx, &sync.WaitGroup{}, config)
}

// towardsOthers is the index of the link that routes to other nodes' pods lead
// to. A vxlan link that is not up has lost its routes.
func (n *nodeNetwork) towardsOthers(at place) (int, error) {
	name := n.backend.link()
	if name == "" {
		return at.index, nil
	}
	link, err := netlink.LinkByName(name)
	if err == nil && link.Attrs().Flags&net.FlagUp == 0 {
		err = errLinkLost
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return link.Attrs().Index, nil
}

// ensureMTU is for a vxlan link that was made when the link below had another.
func (n *nodeNetwork) ensureMTU(index, mtu int) error {
	if n.backend.Type != backendVXLAN {
		return nil
	}
	link, err := netlink.LinkByIndex(index)
	if err == nil && link.Attrs().MTU != mtu {
		err = netlink.LinkSetMTU(link, mtu)
	}
	if err != nil {
		return fmt.Errorf("cannot give %s an MTU of %d: %w", n.backend.link(), mtu, err)
	}
	return nil
}

// follow keeps the backend fed until the place is another or the link is lost.
// A place that can't be made out, as on a Node that was deleted or a link
// without its address, is no reason to end what works.
func (n *nodeNetwork) follow(ctx context.Context, at place, leases *leases, link int, ended <-chan struct{}) error {
	ticker := time.NewTicker(kernelCheckInterval)
	defer ticker.Stop()
	seen := map[kernelEntry]bool{}
	var failed, displaced, silent string
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			return errors.New("the backend has ended by itself")
		case <-n.changed:
		case <-ticker.C:
			now, err := n.towardsOthers(at)
			if err == nil && now != link {
				err = errLinkLost
			}
			if err != nil {
				return err
			}
			err = n.repair(leases, link, seen)
			failed = reportOnce(failed, err, "Routes to other nodes can't be checked")
		}
		leases.wake()
		now, err := n.findPlace()
		displaced = reportOnce(displaced, err, "This node's place can't be made out; the network stays as it is")
		if err == nil && now != at {
			klog.InfoS("This node has moved", "from", at.address, "to", now.address, "link", now.link, "podCIDR", now.podCIDR)
			return nil
		}
		silent = reportOnce(silent, leases.announce(ctx), "Other nodes don't know this one")
	}
}

// reportOnce logs a failure that is not the last one again.
func reportOnce(last string, err error, message string) string {
	if err == nil {
		return ""
	}
	if err.Error() != last {
		klog.ErrorS(err, message)
	}
	return err.Error()
}

// removeStale takes away what belongs to no node, before the backend begins.
func (n *nodeNetwork) removeStale(leases *leases, link int) error {
	state, err := readKernel(link, n.backend)
	if err != nil {
		return err
	}
	known, wanted := leases.state()
	stale, _ := planRepair(state, known, wanted, n.backend.Type)
	for _, entry := range stale {
		klog.InfoS("Removing what belongs to no node", "kind", entry.kind, "subnet", entry.subnet, "address", entry.address)
	}
	return state.remove(stale)
}

// repair compares the kernel with the other nodes. What is stale goes when it
// was so at the last look as well: the backend may be about to remove it, and
// would try for a minute if it were gone. Missing routes of host-gw are
// upstream's to bring back.
func (n *nodeNetwork) repair(leases *leases, link int, seen map[kernelEntry]bool) error {
	state, err := readKernel(link, n.backend)
	if err != nil {
		return err
	}
	known, wanted := leases.state()
	stale, incomplete := planRepair(state, known, wanted, n.backend.Type)
	var twice []kernelEntry
	for _, entry := range stale {
		if seen[entry] {
			twice = append(twice, entry)
		}
	}
	clear(seen)
	for _, entry := range stale {
		seen[entry] = true
	}
	if n.backend.Type == backendVXLAN {
		for _, p := range incomplete {
			klog.InfoS("Bringing back what is missing of a node", "subnet", p.subnet, "address", p.address)
			leases.forget(p)
		}
	}
	return state.remove(twice)
}
