package main

import (
	"context"

	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

type schedulerOptions struct{ *options.Options }

func parseScheduler(args []string) (*schedulerOptions, error) {
	o := options.NewOptions()
	if err := parseArguments("kube-scheduler", *o.Flags, args); err != nil {
		return nil, err
	}
	return &schedulerOptions{o}, nil
}

func (o *schedulerOptions) run(ctx context.Context) error {
	config, scheduler, err := app.Setup(ctx, o.Options)
	if err != nil {
		return err
	}
	return app.Run(ctx, config, scheduler)
}
