package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// networkWriter keeps the pod network configuration in step with the pod
// CIDRs that the controller manager gives to this node. With a backend it does
// so as part of the network between nodes (internode.go).
type networkWriter struct {
	network    *NetworkConfig
	nodeName   string
	kubeconfig string
}

func newNetworkWriter(config *NodeConfig) (*networkWriter, error) {
	w := &networkWriter{network: config.Network}
	if len(w.network.PodCIDRs) > 0 {
		return w, w.write(w.network.PodCIDRs, 0)
	}
	path, ok := argument(config.Kubelet, "kubeconfig")
	if !ok {
		return nil, errors.New("the kubelet's arguments name no --kubeconfig to watch the node with")
	}
	w.kubeconfig = path
	name, err := nodeName(config.Kubelet)
	if err != nil {
		return nil, err
	}
	w.nodeName = name
	return w, nil
}

// run watches this node's own object until ctx ends, or all nodes with a
// backend. The object changes a few times an hour, and only its pod CIDRs are
// kept.
func (w *networkWriter) run(ctx context.Context) error {
	if len(w.network.PodCIDRs) > 0 {
		<-ctx.Done()
		return nil
	}
	if w.network.Backend != nil {
		return runNodeNetwork(ctx, w)
	}
	client, err := newClient(w.kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	self := fields.OneTermEqualSelector("metadata.name", w.nodeName)
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(
			cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "nodes", corev1.NamespaceAll, self), client),
		ObjectType: &corev1.Node{},
		Transform:  keepPodCIDRs,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    w.observe,
			UpdateFunc: func(_, object any) { w.observe(object) },
		},
	})
	informer.RunWithContext(ctx)
	return nil
}

// keepPodCIDRs drops everything of a node that is not looked at here.
func keepPodCIDRs(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	kept := &corev1.Node{}
	kept.Name, kept.UID, kept.ResourceVersion = node.Name, node.UID, node.ResourceVersion
	kept.Spec.PodCIDR, kept.Spec.PodCIDRs = node.Spec.PodCIDR, node.Spec.PodCIDRs
	return kept, nil
}

func (w *networkWriter) observe(object any) {
	node, ok := object.(*corev1.Node)
	if !ok || node.Name != w.nodeName {
		return
	}
	cidrs, err := parsePodCIDRs(node.Spec.PodCIDRs, node.Spec.PodCIDR)
	if err != nil {
		klog.ErrorS(err, "Node has an unreadable pod CIDR", "node", node.Name)
		return
	}
	if len(cidrs) == 0 {
		klog.InfoS("Node has no pod CIDR yet", "node", node.Name)
		return
	}
	if err := w.write(cidrs, 0); err != nil {
		klog.ErrorS(err, "Failed to write the pod network configuration", "path", w.network.ConfPath)
	}
}

// write replaces the conflist atomically, and only when it differs: the
// container runtime watches the folder and reloads on every change. The MTU is
// what a backend carries, or 0 without one.
func (w *networkWriter) write(podCIDRs []netip.Prefix, mtu int) error {
	wanted, err := planConflist(w.network, podCIDRs, mtu)
	if err != nil {
		return err
	}
	path := w.network.ConfPath
	if current, err := os.ReadFile(path); err == nil && bytes.Equal(current, wanted) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, wanted, 0o644); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	klog.InfoS("Pod network configuration written", "path", path, "podCIDRs", podCIDRs)
	return nil
}

// nodeName is the name that the kubelet registers under: what its arguments
// say, or the host's name in the form that Kubernetes allows.
func nodeName(kubeletArgs []string) (string, error) {
	name, _ := argument(kubeletArgs, "hostname-override")
	if name == "" {
		hostname, err := os.Hostname()
		if err != nil {
			return "", err
		}
		name = hostname
	}
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "" {
		return "", errors.New("this host has no name")
	}
	return name, nil
}
