package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kube.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestControlConfigIsRead(t *testing.T) {
	path := writeConfig(t, `{"apiserver": ["--a=1"], "controllerManager": ["--b"], "scheduler": []}`)
	config, err := loadControlConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(config.APIServer) != 1 || config.APIServer[0] != "--a=1" || len(config.ControllerManager) != 1 || len(config.Scheduler) != 0 {
		t.Errorf("got %+v", config)
	}
}

func TestNodeConfigIsRead(t *testing.T) {
	path := writeConfig(t, `{"kubelet": ["--c"], "proxy": ["--d"],
		"network": {"confPath": "/n", "bridge": "b0", "dataDir": "/d", "podCIDRs": ["10.1.0.0/24"]}}`)
	config, err := loadNodeConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if config.Network.Bridge != "b0" || config.Network.PodCIDRs[0].String() != "10.1.0.0/24" {
		t.Errorf("got %+v", config.Network)
	}
}

func TestWrongConfigurationsAreRefusedWithTheirPath(t *testing.T) {
	for text, reason := range map[string]string{
		`{"apiserver": []}`:                  "apiserver has no arguments",
		`{"apiServer": ["--a"], "more": {}}`: `unknown field "more"`,
		`{"apiserver": ["--a"]} {}`:          "something follows",
		`{"apiserver": ["--a"`:               "unexpected EOF",
	} {
		path := writeConfig(t, text)
		_, err := loadControlConfig(path)
		if err == nil || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestWrongNetworksAreRefused(t *testing.T) {
	for network, reason := range map[string]string{
		`{"bridge": "b", "dataDir": "/d"}`:                                           "confPath is empty",
		`{"confPath": "/n", "dataDir": "/d"}`:                                        "bridge is empty",
		`{"confPath": "/n", "bridge": "b"}`:                                          "dataDir is empty",
		`{"confPath": "/n", "bridge": "a-name-far-too-long", "dataDir": "/d"}`:       "longer than 15 characters",
		`{"confPath": "/n", "bridge": "b", "dataDir": "/d", "mtu": -1}`:              "mtu -1 is negative",
		`{"confPath": "/n", "bridge": "b", "dataDir": "/d", "podCIDRs": ["10.1.0"]}`: "ParsePrefix",
	} {
		path := writeConfig(t, `{"kubelet": ["--c"], "network": `+network+`}`)
		_, err := loadNodeConfig(path)
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: got %v", network, err)
		}
	}
}

func TestABackendIsCompleted(t *testing.T) {
	path := writeConfig(t, `{"kubelet": ["--c"], "network": {"confPath": "/n", "bridge": "b0", "dataDir": "/d", "backend":
		{"type": "vxlan", "clusterCIDR": "10.1.0.0/16", "kubeconfig": "/k"}}}`)
	config, err := loadNodeConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	backend := config.Network.Backend
	if backend.VNI != 7443 || backend.Port != 8472 || backend.link() != "flannel.7443" || backend.Address.IsValid() {
		t.Errorf("got %+v", backend)
	}
}

func TestWrongBackendsAreRefused(t *testing.T) {
	const good = `"clusterCIDR": "10.1.0.0/16", "kubeconfig": "/k"`
	for backend, reason := range map[string]string{
		`{` + good + `}`:                                                        `backend: type "" is neither vxlan nor host-gw`,
		`{"type": "wireguard", ` + good + `}`:                                   `type "wireguard" is neither`,
		`{"type": "vxlan", "clusterCIDR": "10.1.0.0/16"}`:                       "kubeconfig is empty",
		`{"type": "vxlan", "kubeconfig": "/k"}`:                                 "clusterCIDR is missing",
		`{"type": "vxlan", "kubeconfig": "/k", "clusterCIDR": "fd01::/48"}`:     "IPv4 only",
		`{"type": "vxlan", "kubeconfig": "/k", "clusterCIDR": "10.1.5.0/16"}`:   "is 10.1.0.0/16 meant?",
		`{"type": "vxlan", "vni": 16777215, ` + good + `}`:                      "vni 16777215 is not within 1 and 9999999",
		`{"type": "vxlan", "vni": -1, ` + good + `}`:                            "vni -1",
		`{"type": "vxlan", "port": 65536, ` + good + `}`:                        "port 65536",
		`{"type": "host-gw", "vni": 7, ` + good + `}`:                           "vni and port belong to the type vxlan",
		`{"type": "vxlan", "address": "fd01::1", ` + good + `}`:                 "address fd01::1",
		`{"type": "vxlan", "address": "127.0.0.1", ` + good + `}`:               "address 127.0.0.1",
		`{"type": "vxlan", "interface": "eth0", ` + good + `}`:                  `unknown field "interface"`,
		`{"type": "vxlan", ` + good + `}, "podCIDRs": ["10.1.0.0/24"]`:          "podCIDRs and backend exclude",
		`{"type": "host-gw", "clusterCIDR": "10.1.0.0/33", "kubeconfig": "/k"}`: "ParsePrefix",
		`{"type": "vxlan", "address": "192.0.2.1/24", ` + good + `}`:            "ParseAddr",
	} {
		path := writeConfig(t, `{"kubelet": ["--c"], "network": {"confPath": "/n", "bridge": "b", "dataDir": "/d", "backend": `+backend+`}}`)
		_, err := loadNodeConfig(path)
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: got %v", backend, err)
		}
	}
}

func TestTheConfigFlagIsAllThatIsTaken(t *testing.T) {
	for _, args := range [][]string{{"--config", "/a"}, {"--config=/a"}} {
		if path, err := configFlag(args); err != nil || path != "/a" {
			t.Errorf("%q: got %q, %v", args, path, err)
		}
	}
	for _, args := range [][]string{nil, {"--config"}, {"--config="}, {"--other", "/a"}, {"--config", "/a", "b"}} {
		if _, err := configFlag(args); !errors.Is(err, errUsage) {
			t.Errorf("%q: got %v", args, err)
		}
	}
}

func TestTheLastArgumentOfANameCounts(t *testing.T) {
	args := []string{"--kubeconfig=/a", "--kubeconfig-more=/no", "--kubeconfig", "/b"}
	if value, ok := argument(args, "kubeconfig"); !ok || value != "/b" {
		t.Errorf("got %q, %v", value, ok)
	}
	if _, ok := argument(args, "absent"); ok {
		t.Error("an absent argument is found")
	}
}
