package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// upstreamCommand returns one of upstream's programs as upstream builds it.
// The benchmark runs the five of them as the peer of Skiff's two daemons, and
// somebody in search of a fault can take one of them by itself.
func upstreamCommand(name string) (*cobra.Command, error) {
	switch name {
	case "kube-apiserver":
		return apiserver.NewAPIServerCommand(), nil
	case "kube-controller-manager":
		return controllermanager.NewControllerManagerCommand(), nil
	case "kube-scheduler":
		return scheduler.NewSchedulerCommand(), nil
	case "kubelet":
		return kubelet.NewKubeletCommand(context.Background()), nil
	case "kube-proxy":
		return proxy.NewProxyCommand(), nil
	}
	return nil, fmt.Errorf("%w: no component is called %q", errUsage, name)
}

// runUpstream runs it with the arguments that follow its name, and returns the
// exit code.
func runUpstream(args []string) (int, error) {
	if len(args) == 0 {
		return 0, fmt.Errorf("%w: no component given", errUsage)
	}
	command, err := upstreamCommand(args[0])
	if err != nil {
		return 0, err
	}
	command.SetArgs(args[1:])
	return cli.Run(command), nil
}
