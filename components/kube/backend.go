package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
)

const (
	backendVXLAN  = "vxlan"
	backendHostGW = "host-gw"

	// vniDefault names the link `flannel.7443`. It is none of the numbers that
	// others begin with, so that a node that stops may remove the link by name.
	vniDefault = 7443
	// vniMax keeps the link's name within the kernel's 15 characters.
	vniMax = 9_999_999
	// vxlanPortDefault is Linux's and flannel's own, not IANA's 4789.
	vxlanPortDefault = 8472
)

// BackendConfig says how the pods of this node reach those of other nodes.
//
// Two identities are used. The kubelet's own (the --kubeconfig of its
// arguments) writes annotations to this node's Node by a patch of nodes/status,
// which the Node authorizer allows. It may read no other Node, so Kubeconfig
// names an identity that needs exactly this, cluster-wide:
//
//	apiGroups: [""]  resources: [nodes]  verbs: [list, watch]
type BackendConfig struct {
	// Type is vxlan, which asks nothing of the network between the nodes but UDP,
	// or host-gw, which needs all nodes on one link and wraps nothing.
	Type string `json:"type"`
	// ClusterCIDR is the network that all pods of the cluster are in.
	ClusterCIDR netip.Prefix `json:"clusterCIDR"`
	// Kubeconfig is of the identity that sees the other nodes.
	Kubeconfig string `json:"kubeconfig"`
	// VNI tells networks on one port apart; equal on all nodes.
	VNI int `json:"vni,omitempty"`
	// Port is vxlan's UDP port; equal on all nodes.
	Port int `json:"port,omitempty"`
	// Address is where other nodes reach this one. Without it, it is the
	// InternalIP of the Node object, and a change of that is followed.
	Address netip.Addr `json:"address,omitzero"`
}

// complete fills in what may be left out.
func (b *BackendConfig) complete() {
	if b.Type == backendVXLAN {
		b.VNI = cmp.Or(b.VNI, vniDefault)
		b.Port = cmp.Or(b.Port, vxlanPortDefault)
	}
}

// validate looks at a configuration that is complete.
func (b *BackendConfig) validate() error {
	switch b.Type {
	case backendVXLAN:
		if b.VNI < 1 || b.VNI > vniMax {
			return fmt.Errorf("vni %d is not within 1 and %d", b.VNI, vniMax)
		}
		if b.Port < 1 || b.Port > 65535 {
			return fmt.Errorf("port %d is not within 1 and 65535", b.Port)
		}
	case backendHostGW:
		if b.VNI != 0 || b.Port != 0 {
			return errors.New("vni and port belong to the type vxlan, not to host-gw")
		}
	default:
		return fmt.Errorf("type %q is neither vxlan nor host-gw", b.Type)
	}
	if b.Kubeconfig == "" {
		return errors.New("kubeconfig is empty: an identity that may list and watch nodes is needed")
	}
	if err := validateClusterCIDR(b.ClusterCIDR); err != nil {
		return err
	}
	if b.Address.IsValid() && (!b.Address.Is4() || !b.Address.IsGlobalUnicast()) {
		return fmt.Errorf("address %s is not an IPv4 address that other nodes can reach", b.Address)
	}
	return nil
}

func validateClusterCIDR(cidr netip.Prefix) error {
	switch {
	case !cidr.IsValid():
		return errors.New("clusterCIDR is missing: the network that all pods are in")
	case !cidr.Addr().Is4():
		return fmt.Errorf("clusterCIDR %s is IPv6, but the network between nodes is IPv4 only", cidr)
	case cidr != cidr.Masked():
		return fmt.Errorf("clusterCIDR %s has bits behind its length: is %s meant?", cidr, cidr.Masked())
	}
	return nil
}

// link is the name of the vxlan link, and empty when there is none.
func (b *BackendConfig) link() string {
	if b.Type != backendVXLAN {
		return ""
	}
	return fmt.Sprintf("flannel.%d", b.VNI)
}

// parameters is the configuration in the words of flannel's backend.
func (b *BackendConfig) parameters() (json.RawMessage, error) {
	parameters := map[string]any{"Type": b.Type}
	if b.Type == backendVXLAN {
		parameters["VNI"], parameters["Port"] = b.VNI, b.Port
	}
	return json.Marshal(parameters)
}

// chooseMTU is what the pods' links get: what the configuration says, or else
// what the backend carries.
func chooseMTU(configured, carried int) int { return cmp.Or(configured, carried) }
