package main

import (
	"fmt"
	"io"

	"k8s.io/component-base/version"
)

// printVersion writes one `key value` pair a line.
func printVersion(w io.Writer) {
	info := version.Get()
	fmt.Fprintf(w, "kubernetes %s\ncommit %s\ngo %s\nplatform %s\n",
		info.GitVersion, info.GitCommit, info.GoVersion, info.Platform)
}
