package main

import (
	"os"

	// Credential plugins of kubeconfigs (exec, OIDC).
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

// runKubectl is upstream's kubectl. It looks at os.Args itself when it
// searches for plugins, so these are made to look as it expects.
func runKubectl(args []string) int {
	os.Args = args
	// The verbosity must count while the command is still being put together.
	_, _ = logs.GlogSetter(cmd.GetLogVerbosity(args))
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err) // prints in kubectl's manner and exits
	}
	return 0
}
