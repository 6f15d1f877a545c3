package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"sync"
	"time"

	noop "go.opentelemetry.io/otel/trace/noop"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"
)

// gracePeriodAnnotation is where the kubelet notes on each container how long
// its pod may take to end, in seconds.
const gracePeriodAnnotation = "io.kubernetes.pod.terminationGracePeriod"

// criCallBound is what a call to the runtime may take beside the waiting that
// it was asked for.
const criCallBound = 10 * time.Second

// runPods ends all pods of a runtime, each within its own grace period and all
// of them within a bound, and removes what the runtime keeps of them. It is
// for a node that stops: its kubelet must not run any more.
func runPods(args []string) error {
	flags := flag.NewFlagSet("pods", flag.ContinueOnError)
	endpoint := flags.String("endpoint", "", "the runtime's socket, unix:///…")
	graceMax := flags.Duration("grace-max", 30*time.Second, "longest grace period that is granted")
	if len(args) == 0 || args[0] != "stop" {
		return fmt.Errorf("%w: pods knows one verb, stop", errUsage)
	}
	if err := flags.Parse(args[1:]); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if *endpoint == "" {
		return fmt.Errorf("%w: --endpoint is missing", errUsage)
	}
	return withSignals(func(ctx context.Context) error { return stopPods(ctx, *endpoint, *graceMax) })
}

func stopPods(ctx context.Context, endpoint string, graceMax time.Duration) error {
	bound := graceMax + 2*criCallBound
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	runtime, err := remote.NewRemoteRuntimeService(ctx, endpoint, bound, noop.NewTracerProvider(), false)
	if err != nil {
		return fmt.Errorf("the container runtime does not answer: %w", err)
	}
	sandboxes, err := runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return fmt.Errorf("cannot list pods: %w", err)
	}
	failures := make([]error, len(sandboxes))
	var pods sync.WaitGroup
	for i, sandbox := range sandboxes {
		pods.Add(1)
		go func() {
			defer pods.Done()
			if err := stopPod(ctx, runtime, sandbox.Id, graceMax); err != nil {
				failures[i] = fmt.Errorf("pod %s/%s: %w", sandbox.Metadata.Namespace, sandbox.Metadata.Name, err)
			}
		}()
	}
	pods.Wait()
	fmt.Printf("%d pods stopped\n", len(sandboxes))
	return errors.Join(failures...)
}

func stopPod(ctx context.Context, runtime cri.RuntimeService, sandbox string, graceMax time.Duration) error {
	running := &runtimeapi.ContainerFilter{
		PodSandboxId: sandbox,
		State:        &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	}
	containers, err := runtime.ListContainers(ctx, running)
	if err != nil {
		return err
	}
	failures := make([]error, len(containers))
	var all sync.WaitGroup
	for i, container := range containers {
		all.Add(1)
		go func() {
			defer all.Done()
			seconds := gracePeriod(container.Annotations, graceMax)
			failures[i] = runtime.StopContainer(ctx, container.Id, seconds)
		}()
	}
	all.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	if err := runtime.StopPodSandbox(ctx, sandbox); err != nil {
		return err
	}
	return runtime.RemovePodSandbox(ctx, sandbox)
}

// gracePeriod is the pod's own, in seconds, but at most the bound. Without a
// readable annotation it is the bound: better late than killed.
func gracePeriod(annotations map[string]string, graceMax time.Duration) int64 {
	most := int64(graceMax / time.Second)
	seconds, err := strconv.ParseInt(annotations[gracePeriodAnnotation], 10, 64)
	if err != nil || seconds > most {
		return most
	}
	return max(seconds, 0)
}
