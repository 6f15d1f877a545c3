package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/lease"
	rules "github.com/flannel-io/flannel/pkg/trafficmngr/nftables"
	"sigs.k8s.io/knftables"
)

// forwardingSwitch lets packets through from one link to another. The bridge
// plugin sets it with the first pod; a Service's port on a node is to lead to
// other nodes before that.
const forwardingSwitch = "/proc/sys/net/ipv4/ip_forward"

// applyMasquerade has packets of pods carry the node's address when they leave
// the cluster's network, and only then. flannel's rules to accept forwarded
// packets are left out: with nftables, accepting in one table keeps no other
// table from dropping.
func applyMasquerade(ctx context.Context, b *BackendConfig, own *lease.Lease) error {
	manager := &rules.NFTablesManager{}
	if err := manager.Init(ctx); err != nil {
		return err
	}
	err := manager.SetupAndEnsureMasqRules(ctx, flannelNet(b.ClusterCIDR), ip.IP4Net{}, ip.IP4Net{},
		ip.IP6Net{}, ip.IP6Net{}, ip.IP6Net{}, own, 0, false)
	if err != nil {
		return err
	}
	return removePluginMasquerade(ctx)
}

// removePluginMasquerade takes away the rules of pods from before this node had
// others beside it. They would hide the pods' addresses from other nodes.
func removePluginMasquerade(ctx context.Context) error {
	table, err := knftables.New(knftables.InetFamily, "cni_plugins_masquerade")
	if err != nil {
		return err
	}
	transaction := table.NewTransaction()
	transaction.Delete(&knftables.Table{})
	if err := table.Run(ctx, transaction); err != nil && !knftables.IsNotFound(err) {
		return fmt.Errorf("cannot remove the bridge plugin's masquerading: %w", err)
	}
	return nil
}

// ensureForwarding turns forwarding on; a host that has it is left alone.
func ensureForwarding() error {
	current, err := os.ReadFile(forwardingSwitch)
	if err == nil && strings.TrimSpace(string(current)) == "1" {
		return nil
	}
	if err := os.WriteFile(forwardingSwitch, []byte("1\n"), 0o644); err != nil {
		return fmt.Errorf("cannot turn forwarding on: %w", err)
	}
	return nil
}
