package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/pflag"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cliflag "k8s.io/component-base/cli/flag"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// nodeStopBound is for kubelet and proxy to end what they are at. Pods and
// rules stay as they are: this is not a drain.
const nodeStopBound = 5 * time.Second

// runNode runs what needs root on every node: kubelet and proxy, and the
// writer of the pod network configuration without which no pod starts.
func runNode(ctx context.Context, config *NodeConfig) error {
	services, err := parseProxy(config.Proxy)
	if err != nil {
		return fmt.Errorf("kube-proxy: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	components := newGroup(3)
	if config.Network != nil {
		writer, err := newNetworkWriter(config)
		if err != nil {
			return fmt.Errorf("pod network: %w", err)
		}
		components.start("pod-network", func() error { return writer.run(ctx) })
	}
	components.start("kubelet", func() error { return runKubelet(ctx, config.Kubelet) })
	if services != nil {
		components.start("kube-proxy", func() error {
			// Before the roles exist the proxy is allowed nothing, and would wait between
			// its tries for longer than they take.
			waitComplete(ctx, config.Kubelet)
			return services.Run(ctx)
		})
	}
	err = components.wait(ctx)
	stop()
	components.drain(nodeStopBound)
	return err
}

const (
	// completeBound is for an API server that does not become ready: the proxy
	// then goes on by itself, with the rules that it finds.
	completeBound = 20 * time.Second
	completePoll  = 100 * time.Millisecond
)

// waitComplete returns when the API server has created what a first start
// creates, asked with the kubelet's credentials: every identity may ask that.
func waitComplete(ctx context.Context, kubeletArgs []string) {
	kubeconfig, ok := argument(kubeletArgs, "kubeconfig")
	if !ok {
		return
	}
	rest, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return
	}
	client, err := restclient.HTTPClientFor(rest)
	if err != nil {
		return
	}
	client.Timeout = readyRequestBound
	ctx, cancel := context.WithTimeout(ctx, completeBound)
	defer cancel()
	for askReady(ctx, client, rest.Host+"/readyz") != "ok" {
		select {
		case <-ctx.Done():
			return
		case <-time.After(completePoll):
		}
	}
}

// runKubelet uses upstream's command, once per process: reading the kubelet's
// configuration file with the right precedence of flags lives in there and is
// not exported. It installs a signal handler of its own beside ours.
func runKubelet(ctx context.Context, args []string) error {
	command := kubelet.NewKubeletCommand(ctx)
	command.SetArgs(args)
	command.SilenceErrors = true
	return command.ExecuteContext(ctx)
}

// parseProxy returns nil when the proxy is not wanted.
func parseProxy(args []string) (*proxy.Options, error) {
	if len(args) == 0 {
		return nil, nil
	}
	options := proxy.NewOptions()
	flags := pflag.NewFlagSet("kube-proxy", pflag.ContinueOnError)
	flags.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	options.AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if rest := flags.Args(); len(rest) > 0 {
		return nil, fmt.Errorf("unexpected argument %q", rest[0])
	}
	if err := options.Complete(flags); err != nil {
		return nil, err
	}
	if err := options.Validate(); err != nil {
		return nil, err
	}
	return options, nil
}
