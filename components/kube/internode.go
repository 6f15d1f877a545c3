package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

const (
	// kernelCheckInterval is how often links, routes and neighbours are compared
	// with what they should be: whoever takes one away is noticed within that.
	kernelCheckInterval = 5 * time.Second
	// retryMin and retryMax are the pauses after a failure. The first also lets
	// the backend finish what it does by itself when its link was deleted.
	retryMin, retryMax = time.Second, 30 * time.Second
)

// nodeNetwork joins this node's pods with those of other nodes. flannel's
// backends and rules do it; this finds out where the node stands, feeds them
// with the other nodes, and begins anew when the node has moved.
type nodeNetwork struct {
	writer   *networkWriter
	backend  *BackendConfig
	nodeName string
	// self may change the own Node, and is the kubelet's identity.
	self  kubernetes.Interface
	nodes cache.Store
	// changed holds one note that Nodes have changed.
	changed chan struct{}
}

// place is where this node stands. A session of the backend is for one place.
type place struct {
	podCIDR netip.Prefix
	address netip.Addr
	link    string
	index   int
	mtu     int
}

func newNodeNetwork(w *networkWriter) (*nodeNetwork, cache.Controller, error) {
	self, err := newClient(w.kubeconfig)
	if err != nil {
		return nil, nil, fmt.Errorf("the kubelet's kubeconfig: %w", err)
	}
	others, err := newClient(w.network.Backend.Kubeconfig)
	if err != nil {
		return nil, nil, fmt.Errorf("the backend's kubeconfig: %w", err)
	}
	n := &nodeNetwork{
		writer: w, backend: w.network.Backend, nodeName: w.nodeName, self: self, changed: make(chan struct{}, 1),
	}
	note := func() {
		select {
		case n.changed <- struct{}{}:
		default:
		}
	}
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(
			cache.NewListWatchFromClient(others.CoreV1().RESTClient(), "nodes", corev1.NamespaceAll, fields.Everything()), others),
		ObjectType: &corev1.Node{},
		Transform:  keepNetwork,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { note() },
			UpdateFunc: func(_, _ any) { note() },
			DeleteFunc: func(any) { note() },
		},
	})
	n.nodes = store
	return n, informer, nil
}

func newClient(kubeconfig string) (*kubernetes.Clientset, error) {
	rest, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	rest.UserAgent = "kube-node-network"
	return kubernetes.NewForConfig(rest)
}

// keepNetwork drops everything of a Node that is not looked at here.
func keepNetwork(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	kept := &corev1.Node{}
	kept.Name, kept.UID, kept.ResourceVersion = node.Name, node.UID, node.ResourceVersion
	kept.CreationTimestamp = node.CreationTimestamp
	kept.Spec.PodCIDR, kept.Spec.PodCIDRs = node.Spec.PodCIDR, node.Spec.PodCIDRs
	kept.Status.Addresses = node.Status.Addresses
	kept.Annotations = map[string]string{}
	for _, name := range []string{annotationManaged, annotationType, annotationData, annotationAddress} {
		if value, ok := node.Annotations[name]; ok {
			kept.Annotations[name] = value
		}
	}
	return kept, nil
}

// runNodeNetwork holds the network up until ctx ends. Until the Nodes are known, and
// whenever the API is away, the kernel keeps what it has.
func runNodeNetwork(ctx context.Context, w *networkWriter) error {
	n, informer, err := newNodeNetwork(w)
	if err != nil {
		return err
	}
	go informer.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil
	}
	retry, waiting := retryMin, ""
	for ctx.Err() == nil {
		at, err := n.findPlace()
		if err != nil {
			// Nothing is wrong yet: the kubelet registers, the controller gives a range.
			if waiting != err.Error() {
				klog.InfoS("Network between nodes waits", "for", err)
			}
			waiting = err.Error()
			n.wait(ctx, kernelCheckInterval)
			continue
		}
		began := time.Now()
		err = n.serve(ctx, at)
		if time.Since(began) > retryMax {
			retry = retryMin
		}
		if err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "Network between nodes begins anew", "after", retry)
			sleep(ctx, retry)
			retry = min(2*retry, retryMax)
		}
	}
	return nil
}

// wait returns when Nodes have changed, and after that time.
func (n *nodeNetwork) wait(ctx context.Context, most time.Duration) {
	select {
	case <-ctx.Done():
	case <-n.changed:
	case <-time.After(most):
	}
}

func sleep(ctx context.Context, pause time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

func storedNode(nodes cache.Store, name string) *corev1.Node {
	object, _, err := nodes.GetByKey(name)
	if node, ok := object.(*corev1.Node); ok && err == nil {
		return node
	}
	return nil
}

// findPlace says where this node stands, or what is missing.
func (n *nodeNetwork) findPlace() (place, error) {
	node := storedNode(n.nodes, n.nodeName)
	if node == nil {
		return place{}, fmt.Errorf("there is no Node %s yet", n.nodeName)
	}
	podCIDR, err := choosePodCIDR(node, n.backend.ClusterCIDR)
	if err != nil {
		return place{}, err
	}
	address, err := chooseAddress(node, n.backend.Address)
	if err != nil {
		return place{}, err
	}
	link, err := linkOf(address)
	if err != nil {
		return place{}, err
	}
	attributes := link.Attrs()
	return place{
		podCIDR: podCIDR, address: address, link: attributes.Name, index: attributes.Index, mtu: attributes.MTU,
	}, nil
}

// linkOf finds the link that has an address.
func linkOf(address netip.Addr) (netlink.Link, error) {
	all, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("cannot list addresses: %w", err)
	}
	for _, a := range all {
		if has, ok := netip.AddrFromSlice(a.IP); ok && has.Unmap() == address {
			return netlink.LinkByIndex(a.LinkIndex)
		}
	}
	return nil, fmt.Errorf("no link of this node has its address %s", address)
}
