package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
)

// ControlConfig is the file behind `kube control --config`: the arguments of
// each component as upstream spells them. A component without arguments does
// not run, except that the API server must.
type ControlConfig struct {
	APIServer         []string `json:"apiserver"`
	ControllerManager []string `json:"controllerManager,omitempty"`
	Scheduler         []string `json:"scheduler,omitempty"`
	// Refused is the file with the nodes that the API server lets in no more;
	// without it there is no such rule.
	Refused string `json:"refused,omitempty"`
}

// NodeConfig is the file behind `kube node --config`.
type NodeConfig struct {
	Kubelet []string       `json:"kubelet"`
	Proxy   []string       `json:"proxy,omitempty"`
	Network *NetworkConfig `json:"network,omitempty"`
}

// NetworkConfig says what the pod network of this node looks like and where
// the container runtime reads it.
type NetworkConfig struct {
	// ConfPath is the conflist that is written; its folder must exist or be creatable.
	ConfPath string `json:"confPath"`
	// Bridge is the name of the bridge that the pods hang on.
	Bridge string `json:"bridge"`
	// MTU of the pods' links; 0 leaves it to the kernel, or to the backend.
	MTU int `json:"mtu,omitempty"`
	// DataDir is where the addresses given away are remembered.
	DataDir string `json:"dataDir"`
	// PodCIDRs overrides what the Node object says: nothing is waited for then.
	PodCIDRs []netip.Prefix `json:"podCIDRs,omitempty"`
	// Backend joins the pods of several nodes; without it there is one node.
	Backend *BackendConfig `json:"backend,omitempty"`
}

func loadControlConfig(path string) (*ControlConfig, error) {
	config := &ControlConfig{}
	if err := loadJSON(path, config); err != nil {
		return nil, err
	}
	if len(config.APIServer) == 0 {
		return nil, fmt.Errorf("configuration %s: apiserver has no arguments", path)
	}
	return config, nil
}

func loadNodeConfig(path string) (*NodeConfig, error) {
	config := &NodeConfig{}
	if err := loadJSON(path, config); err != nil {
		return nil, err
	}
	if len(config.Kubelet) == 0 {
		return nil, fmt.Errorf("configuration %s: kubelet has no arguments", path)
	}
	if config.Network != nil {
		if err := config.Network.validate(); err != nil {
			return nil, fmt.Errorf("configuration %s: network: %w", path, err)
		}
	}
	return config, nil
}

func (n *NetworkConfig) validate() error {
	switch {
	case n.ConfPath == "":
		return errors.New("confPath is empty")
	case n.DataDir == "":
		return errors.New("dataDir is empty")
	case n.Bridge == "":
		return errors.New("bridge is empty")
	case len(n.Bridge) > 15:
		return fmt.Errorf("bridge %q is longer than 15 characters", n.Bridge)
	case n.MTU < 0:
		return fmt.Errorf("mtu %d is negative", n.MTU)
	case n.Backend == nil:
		return nil
	case len(n.PodCIDRs) > 0:
		return errors.New("podCIDRs and backend exclude one another: other nodes go by what the Node says")
	}
	n.Backend.complete()
	if err := n.Backend.validate(); err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	return nil
}

// loadJSON refuses unknown fields: a misspelt key must not be ignored.
func loadJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("configuration %s: something follows the JSON object", path)
	}
	return nil
}

// configFlag reads `--config FILE` or `--config=FILE` and nothing else.
func configFlag(args []string) (string, error) {
	switch {
	case len(args) == 2 && args[0] == "--config" && args[1] != "":
		return args[1], nil
	case len(args) == 1:
		if path, ok := strings.CutPrefix(args[0], "--config="); ok && path != "" {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: expected --config FILE, got %q", errUsage, args)
}

// argument finds the value of the last --name=value or --name value in args.
func argument(args []string, name string) (string, bool) {
	value, found := "", false
	flag := "--" + name
	for i, arg := range args {
		if rest, ok := strings.CutPrefix(arg, flag+"="); ok {
			value, found = rest, true
		} else if arg == flag && i+1 < len(args) {
			value, found = args[i+1], true
		}
	}
	return value, found
}
