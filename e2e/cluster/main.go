// Command sealedenv-cluster is a whole Kubernetes in one file: every control
// plane and node component of the pinned release, kubectl, and the few small
// programs that the embedded cluster needs besides.
//
// The component is picked by the name the program is called by (a symbolic
// link named kubelet runs the kubelet) or else by the first argument.
// `cargo xtask cluster` builds, starts and stops it; it is a test fixture and
// nothing to run in production.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"sealedenv.dev/e2e/cluster/dns"
	"sealedenv.dev/e2e/cluster/pki"
)

// components maps a name to its entry point, which never returns normally
// with a failure: it ends the process itself or returns the exit code.
var components = map[string]func() int{
	"etcd":                    func() int { etcdmain.Main(os.Args); return 0 },
	"kube-apiserver":          cobraMain(apiserver.NewAPIServerCommand),
	"kube-controller-manager": cobraMain(controllermanager.NewControllerManagerCommand),
	"kube-scheduler":          cobraMain(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kubelet":                 cobraMain(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"kube-proxy":              cobraMain(proxy.NewProxyCommand),
	"kubectl":                 kubectlMain,
	"cluster-dns":             ownMain(dns.Main),
	"pki":                     ownMain(pki.Main),
}

func main() {
	name := filepath.Base(os.Args[0])
	run, known := components[name]
	if !known && len(os.Args) > 1 {
		// Called by its own name: drop that, so each component sees itself as argument 0.
		os.Args = os.Args[1:]
		name = os.Args[0]
		run, known = components[name]
	}
	if !known {
		names := slices.Sorted(maps.Keys(components))
		fmt.Fprintf(os.Stderr, "error: no component %q\nhint: one of %s\n", name, strings.Join(names, ", "))
		os.Exit(2)
	}
	os.Exit(run())
}

func cobraMain(command func() *cobra.Command) func() int {
	return func() int { return cli.Run(command()) }
}

func kubectlMain() int {
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err) // prints in kubectl's own voice and exits
	}
	return 0
}

func ownMain(run func(args []string) error) func() int {
	return func() int {
		if err := run(os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "error: %v\n", err)
			return 1
		}
		return 0
	}
}
