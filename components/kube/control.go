package main

import (
	"context"
	"fmt"
	"time"

	restclient "k8s.io/client-go/rest"
	"k8s.io/component-base/compatibility"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2"
)

const (
	// clientsStopBound is for the controllers and the scheduler to end what they are at.
	clientsStopBound = 5 * time.Second
	// apiServerStopBound is for requests in flight; watches are ended by the server.
	apiServerStopBound = 20 * time.Second
)

// runControl runs the control plane: the API server first, and once it is
// ready the controller manager and the scheduler, which would end with
// "forbidden" before. They stop in the opposite order.
func runControl(ctx context.Context, config *ControlConfig) error {
	plane, err := parseControl(config)
	if err != nil {
		return err
	}
	// client-go would repeat every deprecation warning for our own components.
	restclient.SetDefaultWarningHandler(restclient.NoWarnings{})

	apiContext, stopAPIServer := context.WithCancel(context.Background())
	defer stopAPIServer()
	var refused *refusals
	if config.Refused != "" {
		own := plane.apiServer.SecureServing.ServerCert.CertKey.CertFile
		refused = newRefusals(config.Refused, own)
		go refused.follow(apiContext)
	}
	apiServer, err := buildAPIServer(ctx, apiContext, plane.apiServer, refused)
	if err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	if apiServer == nil {
		return nil
	}
	servers, clients := newGroup(1), newGroup(2)
	servers.start("kube-apiserver", func() error { return apiServer.run(apiContext) })

	clientsContext, stopClients := context.WithCancel(ctx)
	defer stopClients()
	failed := make(chan error, 1)
	go func() { failed <- servers.wait(clientsContext); stopClients() }()

	err = apiServer.waitReady(clientsContext)
	if err == nil {
		startClients(clientsContext, clients, plane)
		err = clients.wait(clientsContext)
	}
	stopClients()
	// Whoever failed first is the reason; the others only followed.
	if serverErr := <-failed; serverErr != nil {
		err = serverErr
	}
	if ctx.Err() != nil {
		err = nil
	}
	klog.InfoS("Stopping the control plane", "reason", err)
	clients.drain(clientsStopBound)
	stopAPIServer()
	servers.drain(apiServerStopBound)
	return err
}

// buildAPIServer builds the API server, which waits for the datastore. It
// returns nothing when the process is asked to stop meanwhile: the build has
// no way to be ended, and the process is about to.
func buildAPIServer(stop, serve context.Context, o *apiServerOptions, refused *refusals) (*apiServer, error) {
	type result struct {
		server *apiServer
		err    error
	}
	built := make(chan result, 1)
	go func() {
		server, err := newAPIServer(serve, o, refused)
		built <- result{server, err}
	}()
	select {
	case <-stop.Done():
		return nil, nil
	case r := <-built:
		return r.server, r.err
	}
}

// controlPlane holds the parsed options of all components.
type controlPlane struct {
	apiServer         *apiServerOptions
	controllerManager *controllerManagerOptions
	scheduler         *schedulerOptions
}

// parseControl reads every component's arguments before any of them starts,
// because feature gates and logging belong to the process and are set once.
func parseControl(config *ControlConfig) (*controlPlane, error) {
	plane := &controlPlane{}
	var err error
	if plane.apiServer, err = parseAPIServer(config.APIServer); err != nil {
		return nil, fmt.Errorf("kube-apiserver: %w", err)
	}
	if len(config.ControllerManager) > 0 {
		if plane.controllerManager, err = parseControllerManager(config.ControllerManager); err != nil {
			return nil, fmt.Errorf("kube-controller-manager: %w", err)
		}
	}
	if len(config.Scheduler) > 0 {
		if plane.scheduler, err = parseScheduler(config.Scheduler); err != nil {
			return nil, fmt.Errorf("kube-scheduler: %w", err)
		}
	}
	registry := plane.apiServer.GenericServerRunOptions.ComponentGlobalsRegistry
	if err := registry.Set(); err != nil {
		return nil, fmt.Errorf("feature gates: %w", err)
	}
	gates := registry.FeatureGateFor(compatibility.DefaultKubeComponent)
	if err := logsapi.ValidateAndApply(plane.apiServer.Logs, gates); err != nil {
		return nil, fmt.Errorf("logging: %w", err)
	}
	if mutable, ok := gates.(featuregate.MutableFeatureGate); ok {
		mutable.AddMetrics()
	}
	registry.AddMetrics()
	return plane, nil
}

func startClients(ctx context.Context, clients *group, plane *controlPlane) {
	if plane.controllerManager != nil {
		clients.start("kube-controller-manager", func() error {
			return plane.controllerManager.run(ctx)
		})
	}
	if plane.scheduler != nil {
		clients.start("kube-scheduler", func() error {
			return plane.scheduler.run(ctx)
		})
	}
}
