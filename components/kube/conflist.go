package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
)

const (
	cniVersion = "1.0.0"
	// networkName is part of the path below which host-local keeps addresses.
	networkName = "skiff"
	// nftables is the only backend: kube-proxy uses it as well, so that one
	// node never has rules in two places that don't know of each other.
	nftables = "nftables"
)

type conflist struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	Plugins    []any  `json:"plugins"`
}

type bridgePlugin struct {
	Type          string        `json:"type"`
	Bridge        string        `json:"bridge"`
	IsGateway     bool          `json:"isGateway"`
	HairpinMode   bool          `json:"hairpinMode"`
	IPMasq        bool          `json:"ipMasq"`
	IPMasqBackend string        `json:"ipMasqBackend"`
	MTU           int           `json:"mtu,omitempty"`
	IPAM          hostLocalIPAM `json:"ipam"`
}

type hostLocalIPAM struct {
	Type    string         `json:"type"`
	DataDir string         `json:"dataDir"`
	Ranges  [][]ipamSubnet `json:"ranges"`
	Routes  []ipamRoute    `json:"routes"`
}

type ipamSubnet struct {
	Subnet netip.Prefix `json:"subnet"`
}

type ipamRoute struct {
	Dst netip.Prefix `json:"dst"`
}

type portmapPlugin struct {
	Type         string          `json:"type"`
	Backend      string          `json:"backend"`
	SNAT         bool            `json:"snat"`
	Capabilities map[string]bool `json:"capabilities"`
}

var (
	defaultRouteIPv4 = netip.MustParsePrefix("0.0.0.0/0")
	defaultRouteIPv6 = netip.MustParsePrefix("::/0")
)

// planConflist says what the container runtime shall read: pods hang on one
// bridge whose address is their gateway. Only what leaves the subnet is
// masqueraded, so pods see each other's addresses, also behind a Service. With
// pods on other nodes that would be too much: there the backend's rules do it
// for what leaves the cluster's network.
func planConflist(network *NetworkConfig, podCIDRs []netip.Prefix, carriedMTU int) ([]byte, error) {
	if len(podCIDRs) == 0 {
		return nil, errors.New("no pod CIDR")
	}
	ipam := hostLocalIPAM{Type: "host-local", DataDir: network.DataDir}
	seen := map[bool]netip.Prefix{}
	for _, cidr := range podCIDRs {
		is4 := cidr.Addr().Is4()
		if other, ok := seen[is4]; ok {
			return nil, fmt.Errorf("two pod CIDRs of one address family: %s and %s", other, cidr)
		}
		seen[is4] = cidr
		ipam.Ranges = append(ipam.Ranges, []ipamSubnet{{Subnet: cidr.Masked()}})
		route := defaultRouteIPv6
		if is4 {
			route = defaultRouteIPv4
		}
		ipam.Routes = append(ipam.Routes, ipamRoute{Dst: route})
	}
	list := conflist{
		CNIVersion: cniVersion,
		Name:       networkName,
		Plugins: []any{
			bridgePlugin{
				Type: "bridge", Bridge: network.Bridge, IsGateway: true, HairpinMode: true,
				IPMasq: network.Backend == nil, IPMasqBackend: nftables,
				MTU: chooseMTU(network.MTU, carriedMTU), IPAM: ipam,
			},
			portmapPlugin{
				Type: "portmap", Backend: nftables, SNAT: true,
				Capabilities: map[string]bool{"portMappings": true},
			},
		},
	}
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// parsePodCIDRs reads what a Node object carries: podCIDRs, or podCIDR alone.
func parsePodCIDRs(list []string, single string) ([]netip.Prefix, error) {
	if len(list) == 0 && single != "" {
		list = []string{single}
	}
	cidrs := make([]netip.Prefix, 0, len(list))
	for _, text := range list {
		cidr, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("pod CIDR %q: %w", text, err)
		}
		cidrs = append(cidrs, cidr)
	}
	return cidrs, nil
}
