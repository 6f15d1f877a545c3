package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/lease"
	"github.com/flannel-io/flannel/pkg/subnet"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// announceBound ends a patch of the own Node that gets no answer.
const announceBound = 10 * time.Second

// leases is what flannel's backends ask for the nodes (subnet.Manager). It is
// ours, because upstream's needs one identity that sees and changes all Nodes,
// keeps whole Nodes in memory, and works from single events: after a list a
// range that went from one node to another is lost, and a Node that is made
// anew stays without annotations. Here each event follows from what is wanted
// and what the backend knows.
type leases struct {
	backend  *BackendConfig
	nodeName string
	at       place
	nodes    cache.Store
	self     kubernetes.Interface
	woken    chan struct{}

	mutex sync.Mutex
	// known is what the backend was told.
	known peers
	// announcement are the annotations that the own Node must have.
	announcement map[string]string
	refused      string
}

func newLeases(n *nodeNetwork, at place) *leases {
	return &leases{
		backend: n.backend, nodeName: n.nodeName, at: at, nodes: n.nodes, self: n.self,
		woken: make(chan struct{}, 1), known: peers{},
	}
}

// wake has the backend told what has changed since.
func (l *leases) wake() {
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// wanted reads the other nodes anew. What is refused is said once.
func (l *leases) wanted() peers {
	var nodes []*corev1.Node
	for _, object := range l.nodes.List() {
		if node, ok := object.(*corev1.Node); ok {
			nodes = append(nodes, node)
		}
	}
	found, err := planPeers(nodes, l.nodeName, l.at.podCIDR, l.backend)
	refused := ""
	if err != nil {
		refused = err.Error()
	}
	if refused != l.refused && err != nil {
		klog.ErrorS(err, "Pods of some nodes are not reached")
	}
	l.refused = refused
	return found
}

// state returns what the backend was told and what it should know.
func (l *leases) state() (known, wanted peers) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return maps.Clone(l.known), l.wanted()
}

// forget has a peer told again: it is not, or not wholly, in the kernel.
func (l *leases) forget(p peer) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	delete(l.known, p.subnet)
}

// WatchLeases tells the backend who comes and goes, until ctx ends.
func (l *leases) WatchLeases(ctx context.Context, receiver chan []lease.LeaseWatchResult) error {
	defer close(receiver)
	for {
		l.mutex.Lock()
		wanted := l.wanted()
		events := planEvents(l.known, wanted, l.backend.Type)
		l.known = wanted
		l.mutex.Unlock()
		if len(events) > 0 {
			select {
			case receiver <- []lease.LeaseWatchResult{{Events: events}}:
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-l.woken:
		case <-ctx.Done():
			return nil
		}
	}
}

// AcquireLease announces this node to the others.
func (l *leases) AcquireLease(ctx context.Context, attrs *lease.LeaseAttrs) (*lease.Lease, error) {
	data, err := json.Marshal(attrs.BackendData)
	if err != nil {
		return nil, err
	}
	l.mutex.Lock()
	l.announcement = map[string]string{
		annotationManaged: "true",
		annotationType:    attrs.BackendType,
		annotationData:    string(data),
		annotationAddress: attrs.PublicIP.String(),
	}
	l.mutex.Unlock()
	if err := l.announce(ctx); err != nil {
		return nil, err
	}
	own := &lease.Lease{EnableIPv4: true, Subnet: flannelNet(l.at.podCIDR), Attrs: *attrs}
	return own, nil
}

// announce writes the annotations where they are missing, also on a Node that
// was deleted and has come back.
func (l *leases) announce(ctx context.Context) error {
	node := l.own()
	l.mutex.Lock()
	wanted := l.announcement
	l.mutex.Unlock()
	if node == nil || isAnnounced(node, wanted) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": wanted}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, announceBound)
	defer cancel()
	_, err = l.self.CoreV1().Nodes().Patch(ctx, l.nodeName, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("cannot announce this node's address to the others: %w", err)
	}
	klog.InfoS("Announced this node to the others", "address", l.at.address, "podCIDR", l.at.podCIDR)
	return nil
}

func isAnnounced(node *corev1.Node, wanted map[string]string) bool {
	for name, value := range wanted {
		if node.Annotations[name] != value {
			return false
		}
	}
	return true
}

func (l *leases) own() *corev1.Node { return storedNode(l.nodes, l.nodeName) }

// GetStoredMacAddresses lets a link that is made anew after a reboot have the
// hardware address that the other nodes know.
func (l *leases) GetStoredMacAddresses(context.Context) (string, string) {
	node := l.own()
	if node == nil || node.Annotations[annotationType] != backendVXLAN {
		return "", ""
	}
	mac, err := readMAC(node.Annotations[annotationData], l.backend.VNI)
	if err != nil {
		return "", ""
	}
	return mac, ""
}

// GetNetworkConfig is the configuration in flannel's words.
func (l *leases) GetNetworkConfig(context.Context) (*subnet.Config, error) {
	parameters, err := l.backend.parameters()
	if err != nil {
		return nil, err
	}
	return &subnet.Config{
		EnableIPv4: true, EnableNFTables: true, Network: flannelNet(l.backend.ClusterCIDR),
		BackendType: l.backend.Type, Backend: parameters,
	}, nil
}

// Name is how flannel calls where leases come from.
func (l *leases) Name() string { return "Kubernetes nodes" }

// What follows belongs to other backends and to flannel's own program.

func (l *leases) GetStoredPublicIP(context.Context) (string, string) { return "", "" }

func (l *leases) CompleteLease(context.Context, *lease.Lease, *sync.WaitGroup) error { return nil }

func (l *leases) RenewLease(context.Context, *lease.Lease) error { return errors.ErrUnsupported }

func (l *leases) WatchLease(context.Context, ip.IP4Net, ip.IP6Net, chan []lease.LeaseWatchResult) error {
	return errors.ErrUnsupported
}

func (l *leases) HandleSubnetFile(string, *subnet.Config, bool, ip.IP4Net, ip.IP6Net, int) error {
	return errors.ErrUnsupported
}
