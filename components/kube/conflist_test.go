package main

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

func testNetwork() *NetworkConfig {
	return &NetworkConfig{ConfPath: "/etc/cni/10-skiff.conflist", Bridge: "skiff0", MTU: 1450, DataDir: "/data"}
}

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func TestOneFamilyGetsOneRangeAndItsDefaultRoute(t *testing.T) {
	data, err := planConflist(testNetwork(), prefixes("10.1.0.0/24"), 0)
	if err != nil {
		t.Fatal(err)
	}
	const expected = `{
  "cniVersion": "1.0.0",
  "name": "skiff",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "skiff0",
      "isGateway": true,
      "hairpinMode": true,
      "ipMasq": true,
      "ipMasqBackend": "nftables",
      "mtu": 1450,
      "ipam": {
        "type": "host-local",
        "dataDir": "/data",
        "ranges": [
          [
            {
              "subnet": "10.1.0.0/24"
            }
          ]
        ],
        "routes": [
          {
            "dst": "0.0.0.0/0"
          }
        ]
      }
    },
    {
      "type": "portmap",
      "backend": "nftables",
      "snat": true,
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
`
	if string(data) != expected {
		t.Errorf("got:\n%s\nexpected:\n%s", data, expected)
	}
}

func TestTwoFamiliesGetARangeAndARouteEach(t *testing.T) {
	data, err := planConflist(testNetwork(), prefixes("10.1.3.0/24", "fd01:0:0:3::/64"), 0)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Plugins []struct {
			IPAM struct {
				Ranges [][]map[string]string
				Routes []map[string]string
			}
		}
	}
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	ipam := list.Plugins[0].IPAM
	if len(ipam.Ranges) != 2 || ipam.Ranges[0][0]["subnet"] != "10.1.3.0/24" || ipam.Ranges[1][0]["subnet"] != "fd01:0:0:3::/64" {
		t.Errorf("ranges: %v", ipam.Ranges)
	}
	if len(ipam.Routes) != 2 || ipam.Routes[0]["dst"] != "0.0.0.0/0" || ipam.Routes[1]["dst"] != "::/0" {
		t.Errorf("routes: %v", ipam.Routes)
	}
}

func TestMTUOfZeroIsLeftToTheKernel(t *testing.T) {
	network := testNetwork()
	network.MTU = 0
	data, err := planConflist(network, prefixes("10.1.0.0/24"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "mtu") {
		t.Errorf("an MTU is set:\n%s", data)
	}
}

func TestWithABackendTheBridgeMasqueradesNothingAndHasTheBackendsMTU(t *testing.T) {
	for configured, expected := range map[int]string{0: `"mtu": 1430`, 1400: `"mtu": 1400`} {
		network := testNetwork()
		network.MTU, network.Backend = configured, &BackendConfig{Type: backendVXLAN}
		data, err := planConflist(network, prefixes("10.1.0.0/24"), 1430)
		if err != nil {
			t.Fatal(err)
		}
		if text := string(data); !strings.Contains(text, expected) || !strings.Contains(text, `"ipMasq": false`) {
			t.Errorf("%d: got\n%s", configured, text)
		}
	}
}

func TestUnusablePodCIDRsAreRefused(t *testing.T) {
	if _, err := planConflist(testNetwork(), nil, 0); err == nil {
		t.Error("no pod CIDR is accepted")
	}
	if _, err := planConflist(testNetwork(), prefixes("10.1.0.0/24", "10.2.0.0/24"), 0); err == nil {
		t.Error("two pod CIDRs of one family are accepted")
	}
}

func TestPodCIDRsAreReadFromEitherField(t *testing.T) {
	for _, c := range []struct {
		list   []string
		single string
		count  int
	}{
		{[]string{"10.1.0.0/24", "fd01::/64"}, "10.1.0.0/24", 2},
		{nil, "10.1.0.0/24", 1},
		{nil, "", 0},
	} {
		cidrs, err := parsePodCIDRs(c.list, c.single)
		if err != nil || len(cidrs) != c.count {
			t.Errorf("%v %q: got %v, %v", c.list, c.single, cidrs, err)
		}
	}
	if _, err := parsePodCIDRs([]string{"10.1.0.0"}, ""); err == nil {
		t.Error("an address without a length is accepted")
	}
}
