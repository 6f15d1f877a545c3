package main

import (
	"context"

	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
)

type controllerManagerOptions struct {
	*options.KubeControllerManagerOptions
}

func parseControllerManager(args []string) (*controllerManagerOptions, error) {
	o, err := options.NewKubeControllerManagerOptions()
	if err != nil {
		return nil, err
	}
	sets := o.Flags(app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases())
	if err := parseArguments("kube-controller-manager", sets, args); err != nil {
		return nil, err
	}
	o.ParsedFlags = &sets
	return &controllerManagerOptions{o}, nil
}

func (o *controllerManagerOptions) run(ctx context.Context) error {
	// The event broadcaster must outlive the signal; Run ends it itself.
	config, err := o.Config(context.WithoutCancel(ctx), app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases())
	if err != nil {
		return err
	}
	return app.Run(ctx, config.Complete())
}
