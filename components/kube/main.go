// Command kube is Kubernetes in one program: the control plane and the node
// part run as two daemons of the same file, so that they share its pages.
//
//	kube control --config FILE   API server, controller manager, scheduler
//	kube node --config FILE      kubelet, proxy, pod network configuration
//	kube pods stop --endpoint E  end all pods of a runtime, within their grace
//	kube kubectl ARGS...         kubectl; also when called by that name
//	kube version                 what this program was built from
//
// `kube kube-apiserver`, `kube kubelet` and so on run one component as
// upstream does, for measurements; see upstream.go.
//
// The Kubernetes packages are upstream's, unmodified; what is here only puts
// them together: one flag set each, one shared stop signal, and an order.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/client-go/transport"
	"k8s.io/component-base/logs"

	"skiff.local/resident"
)

// certificateRefresh is how often the files behind a client certificate are
// looked at. Leaves are renewed long before they expire, so this only bounds
// for how long an old one stays in use.
const certificateRefresh = 10 * time.Second

const usage = `usage:
  kube control --config FILE   run API server, controller manager, scheduler
  kube node --config FILE      run kubelet, proxy and pod network set-up
  kube pods stop --endpoint E  end all pods of a runtime, within their grace
  kube kubectl ARGS...         run kubectl
  kube version                 print the Kubernetes version
`

// errUsage says that the command line itself is wrong.
var errUsage = errors.New("wrong usage")

func main() {
	if filepath.Base(os.Args[0]) == "kubectl" {
		os.Exit(runKubectl(os.Args))
	}
	if len(os.Args) > 1 {
		if code, known := runUpstream(os.Args[1], os.Args[2:]); known {
			os.Exit(code)
		}
	}
	err := run(os.Args[1:])
	logs.FlushLogs()
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "kube: %v\n%s", err, usage)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "kube: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: no command given", errUsage)
	}
	switch args[0] {
	case "control":
		path, err := configFlag(args[1:])
		if err != nil {
			return err
		}
		config, err := loadControlConfig(path)
		if err != nil {
			return err
		}
		return withSignals(func(ctx context.Context) error { return runControl(ctx, config) })
	case "node":
		path, err := configFlag(args[1:])
		if err != nil {
			return err
		}
		config, err := loadNodeConfig(path)
		if err != nil {
			return err
		}
		return withSignals(func(ctx context.Context) error { return runNode(ctx, config) })
	case "pods":
		return runPods(args[1:])
	case "kubectl":
		os.Exit(runKubectl(append([]string{"kubectl"}, args[1:]...)))
		return nil
	case "version":
		printVersion(os.Stdout)
		return nil
	case "help", "-h", "--help":
		fmt.Print(usage)
		return nil
	default:
		return fmt.Errorf("%w: unknown command %q", errUsage, args[0])
	}
}

// withSignals runs a daemon under a context that the first SIGTERM or SIGINT
// ends. A second signal kills at once, as upstream's components do.
func withSignals(daemon func(context.Context) error) error {
	transport.CertCallbackRefreshDuration = certificateRefresh
	logs.InitLogs()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop)
	go followLoad(ctx)
	go resident.Settle()
	return daemon(ctx)
}
