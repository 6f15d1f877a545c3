package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	genericapiserver "k8s.io/apiserver/pkg/server"
	restclient "k8s.io/client-go/rest"
	"k8s.io/component-base/compatibility"
	"k8s.io/component-base/featuregate"
	"k8s.io/component-base/version"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

const (
	// readyPoll is the pause between two looks at the API server's readiness.
	readyPoll = 50 * time.Millisecond
	// readyRequestBound ends one look that gets no answer.
	readyRequestBound = 2 * time.Second
	// readyReport is how often a wait that lasts is mentioned in the log.
	readyReport = 10 * time.Second
)

type apiServerOptions struct{ *options.ServerRunOptions }

func parseAPIServer(args []string) (*apiServerOptions, error) {
	o := options.NewServerRunOptions()
	if err := parseArguments("kube-apiserver", o.Flags(), args); err != nil {
		return nil, err
	}
	return &apiServerOptions{o}, nil
}

// apiServer is a prepared API server and a way to ask it how it is.
type apiServer struct {
	prepared interface{ Run(context.Context) error }
	loopback *restclient.Config
}

func (a *apiServer) run(ctx context.Context) error { return a.prepared.Run(ctx) }

// newAPIServer builds the chain of servers (aggregator, core, extensions).
// It reaches for the datastore, so ctx must end when the process is to stop.
// Nodes that refused names are not let in; nil names nobody.
func newAPIServer(ctx context.Context, o *apiServerOptions, refused *refusals) (*apiServer, error) {
	completedOptions, err := o.Complete(ctx)
	if err != nil {
		return nil, err
	}
	if errs := completedOptions.Validate(); len(errs) != 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	config, err := app.NewConfig(completedOptions)
	if err != nil {
		return nil, err
	}
	generic := config.KubeAPIs.ControlPlane.Generic
	generic.SkipOpenAPIInstallation = true
	if refused != nil {
		refused.guard(config)
	}
	completed, err := config.Complete()
	if err != nil {
		return nil, err
	}
	chain, err := app.CreateServerChain(completed)
	if err != nil {
		return nil, err
	}
	kube, ok := chain.GenericAPIServer.NextDelegate().(*genericapiserver.GenericAPIServer)
	if !ok {
		return nil, errors.New("the aggregator delegates to no server that it is known how to describe")
	}
	if err := describeAPI(kube, generic, describedVersion(o)); err != nil {
		return nil, err
	}
	prepared, err := chain.PrepareRun()
	if err != nil {
		return nil, err
	}
	// Only descriptions need it from now on, and can make it again.
	generic.OpenAPIV3Config.Definitions = nil
	return &apiServer{prepared: prepared, loopback: chain.GenericAPIServer.LoopbackClientConfig}, nil
}

// describedVersion names what the API's description follows from, beside the
// groups that are served.
func describedVersion(o *apiServerOptions) string {
	text := version.Get().GitVersion
	gates := o.GenericServerRunOptions.ComponentGlobalsRegistry.FeatureGateFor(compatibility.DefaultKubeComponent)
	if all, ok := gates.(featuregate.MutableFeatureGate); ok {
		for _, name := range slices.Sorted(maps.Keys(all.GetAll())) {
			text += fmt.Sprintf(" %s=%t", name, gates.Enabled(name))
		}
	}
	return text
}

// waitReady returns once /readyz answers 200, which is after the bootstrap
// roles exist. It ends with ctx: how long a start may take is the
// supervisor's to say.
func (a *apiServer) waitReady(ctx context.Context) error {
	client, err := restclient.HTTPClientFor(a.loopback)
	if err != nil {
		return fmt.Errorf("loopback client: %w", err)
	}
	client.Timeout = readyRequestBound
	url := a.loopback.Host + "/readyz"
	started := time.Now()
	reported := started
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		answer := askReady(ctx, client, url)
		if answer == "ok" {
			klog.InfoS("API server is ready", "after", time.Since(started).Round(time.Millisecond))
			return nil
		}
		if time.Since(reported) >= readyReport {
			reported = time.Now()
			klog.InfoS("API server is not ready yet", "after", time.Since(started).Round(time.Second), "answer", answer)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// askReady returns "ok", or what stands in the way in the server's own words.
func askReady(ctx context.Context, client *http.Client, url string) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	response, err := client.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return err.Error()
	}
	if response.StatusCode == http.StatusOK {
		return "ok"
	}
	return string(body)
}
