package programs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A program is one line of the table: what to build, and from which nested module.
type program struct {
	// dir is the module's directory, relative to the root of the repository.
	dir string
	// shared is the directory of a module outside of dir that is part of the program.
	shared string
	// pkg is the main package, as an argument of `go build` in dir.
	pkg string
	// ldflags are flags of the linker in addition to "-s -w".
	ldflags string
	// tags are build tags, separated by commas.
	tags string
}

// The linker sets the version of Kubernetes' programs. Without a version, kubeadm fails and the API server reports
// v0.0.0.
const kubernetesLDFlags = "-X k8s.io/component-base/version.gitVersion=v1.34.4" +
	" -X k8s.io/component-base/version.gitMajor=1" +
	" -X k8s.io/component-base/version.gitMinor=34" +
	" -X k8s.io/component-base/version.gitTreeState=clean"

func kubernetes(name string) program {
	return program{dir: "test/kubernetes", pkg: "k8s.io/kubernetes/cmd/" + name, ldflags: kubernetesLDFlags}
}

// table holds every program by name.
var table = map[string]program{
	"vault": {dir: "test/vault", pkg: "."},
	"openbao": {dir: "test/openbao", shared: "test/vault/server", pkg: ".",
		ldflags: "-X github.com/openbao/openbao/version.fullVersion=2.4.0"},
	"etcd": {dir: "test/etcd", pkg: "go.etcd.io/etcd/server/v3"},

	"kube-apiserver":          kubernetes("kube-apiserver"),
	"kube-controller-manager": kubernetes("kube-controller-manager"),
	"kube-scheduler":          kubernetes("kube-scheduler"),
	"kube-proxy":              kubernetes("kube-proxy"),
	"kubeadm":                 kubernetes("kubeadm"),
	"kubectl":                 kubernetes("kubectl"),
	"kubelet":                 kubernetes("kubelet"),
	"pause":                   {dir: "test/kubernetes", pkg: "./pause"},

	"coredns": {dir: "test/coredns", pkg: "github.com/coredns/coredns"},
	"kind":    {dir: "test/kind", pkg: "sigs.k8s.io/kind"},

	"helm": {dir: "test/helm", pkg: "helm.sh/helm/v4/cmd/helm"},

	"secrets-store-csi-driver": {dir: "test/driver",
		pkg: "sigs.k8s.io/secrets-store-csi-driver/cmd/secrets-store-csi-driver"},
	"node-driver-registrar": {dir: "test/driver", pkg: "./node-driver-registrar"},

	// Without the service discovery for cloud providers.
	"promtool": {dir: "test/prometheus", pkg: "github.com/prometheus/prometheus/cmd/promtool", tags: "remove_all_sd"},
	"promql":   {dir: "test/prometheus", pkg: "./promql"},
}

// Names returns the names of all programs, sorted.
func Names() []string {
	return slices.Sorted(maps.Keys(table))
}

func lookup(name string) (program, error) {
	p, found := table[name]
	if !found {
		return program{}, fmt.Errorf("no program is called %q; there are %s", name, strings.Join(Names(), ", "))
	}
	return p, nil
}
