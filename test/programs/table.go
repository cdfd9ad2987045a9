package programs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A program is one line of the table: what to build, and from which nested module.
type program struct {
	// component is set if the program has several versions. Its selected version determines dir.
	component *Component
	// dir is the module's directory, relative to the root of the repository.
	dir string
	// storedIn is the directory of the built program, below the directory of all programs.
	storedIn string
	// shared is the directory of a module outside of dir that is part of the program.
	shared string
	// pkg is the main package, as an argument of `go build` in dir.
	pkg string
	// ldflags are flags of the linker in addition to "-s -w".
	ldflags string
	// tags are build tags, separated by commas.
	tags string
}

func kubernetes(name string) program {
	return program{component: &Kubernetes, pkg: "k8s.io/kubernetes/cmd/" + name}
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
	"pause":                   {dir: "test/pause", pkg: "."},

	"coredns": {dir: "test/coredns", pkg: "github.com/coredns/coredns"},
	"kind":    {dir: "test/kind", pkg: "sigs.k8s.io/kind"},

	"helm": {dir: "test/helm", pkg: "helm.sh/helm/v4/cmd/helm"},

	"secrets-store-csi-driver": {component: &Driver, shared: "test/driver/mlog",
		pkg: "sigs.k8s.io/secrets-store-csi-driver/cmd/secrets-store-csi-driver"},
	"node-driver-registrar": {dir: "test/registrar", pkg: "."},

	// Without the service discovery for cloud providers.
	"promtool": {dir: "test/prometheus", pkg: "github.com/prometheus/prometheus/cmd/promtool", tags: "remove_all_sd"},
	"promql":   {dir: "test/prometheus", pkg: "./promql"},
}

// Names returns the names of all programs, sorted.
func Names() []string {
	return slices.Sorted(maps.Keys(table))
}

// lookup returns the named program, of the selected version.
func lookup(root, name string) (program, error) {
	p, found := table[name]
	if !found {
		return program{}, fmt.Errorf("no program is called %q; there are %s", name, strings.Join(Names(), ", "))
	}
	if p.component == nil {
		return p, nil
	}
	version, err := p.component.selected(root)
	if err != nil {
		return program{}, err
	}
	p.dir, p.storedIn = version.Dir, version.Name
	if p.component == &Kubernetes {
		p.ldflags = kubernetesLDFlags(version)
	}
	return p, nil
}

// kubernetesLDFlags set the version of Kubernetes' programs. Without it, kubeadm fails and the API server reports
// v0.0.0.
func kubernetesLDFlags(v Version) string {
	const variable = "-X k8s.io/component-base/version."
	major, minor, _ := strings.Cut(v.Name, ".")
	return variable + "gitVersion=" + v.Tag + " " + variable + "gitMajor=" + major + " " + variable + "gitMinor=" + minor +
		" " + variable + "gitTreeState=clean"
}
