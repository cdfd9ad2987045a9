package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/doctor/workload"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	systemNamespace = "secretmanager-system"
	providerLabel   = "app.kubernetes.io/name=secretmanager-provider"
)

// providerInfo is what the checks found of the provider.
type providerInfo struct {
	set      *appsv1.DaemonSet
	settings class.Settings // the defaults where nothing was found
	insecure bool           // the provider accepts plain HTTP
	inline   []string       // auth mounts of --vault-inline-auth
	known    bool           // the settings were read from the provider
	images   []string       // of its pods, or else of the DaemonSet
}

func (w *run) checkProvider(ctx context.Context) result.Finding {
	if err := w.listDaemonSets(ctx); err != nil {
		return result.RequestFailed("list daemonsets.apps -A", err)
	}
	var elsewhere *appsv1.DaemonSet
	for i := range w.cluster.daemonSets {
		set := &w.cluster.daemonSets[i]
		switch {
		case set.Labels["app.kubernetes.io/name"] != "secretmanager-provider":
		case set.Namespace == w.ProviderNamespace:
			w.provider.set = set
		default:
			elsewhere = set
		}
	}
	set := w.provider.set
	const install = "apply the overlay in docs/install.md (3. Provider and rotator) with kubectl apply -k"
	switch {
	case set == nil && elsewhere != nil:
		// Its settings would determine where credentials go.
		return result.Unknownf("DaemonSet %s/%s has the label %s, but is not in namespace %s: anyone with a namespace "+
			"can create such a DaemonSet",
			elsewhere.Namespace, elsewhere.Name, providerLabel, w.ProviderNamespace).
			WithAdvice("if the installation is in another namespace, name it with --provider-namespace")
	case set == nil && w.cluster.everywhere:
		return result.Brokenf("no DaemonSet has the label %s: the provider is not installed", providerLabel).
			WithAdvice(install)
	case set == nil:
		return result.Unknownf("it is not in the namespaces that you may read").
			WithAdvice("ask someone with that right: kubectl auth can-i list daemonsets.apps -A")
	}
	problem := w.readSettings(ctx)
	s := w.provider.settings
	w.provider.known = problem == ""
	switch {
	case s.VaultAddress == "" && problem == "":
		f := result.Brokenf("DaemonSet %s/%s has no address of Vault", set.Namespace, set.Name).
			WithAdvice("set it in the values or the overlay of docs/install.md, so that the next update keeps it")
		if w.Vault.Address == "" {
			return f
		}
		// Whether pods reach what this machine reaches is for a person to know.
		return f.WithChoice("the pods reach Vault at the address that you use", result.Command("kubectl", "-n", set.Namespace,
			"set", "env", "daemonset/"+set.Name, "-c", providerContainer(&set.Spec.Template.Spec).Name,
			"VAULT_ADDR="+w.Vault.Address))
	case problem != "":
		return result.OKf("DaemonSet %s/%s", set.Namespace, set.Name).
			WithWarning("its address of Vault could not be read: " + problem)
	}
	f := result.OKf("DaemonSet %s/%s, which uses the Vault at %s", set.Namespace, set.Name, s.VaultAddress)
	for _, address := range append([]string{s.VaultAddress}, s.AllowedAddresses...) {
		if !transit.PlainHTTP(address) {
			continue
		}
		if !w.provider.insecure {
			return result.Brokenf("the provider does not start with %s: plain HTTP shows tokens and plaintext to everyone "+
				"on the network", address).
				WithAdvice("let Vault serve https (docs/install.md); --vault-insecure-http accepts plain HTTP, " +
					"for development only")
		}
		f = f.WithWarning("plain HTTP to " + address +
			": everyone on the network can read tokens and plaintext (--vault-insecure-http)")
	}
	return f
}

// readSettings reads the settings of the provider from its DaemonSet. problem is why the address of
// Vault is unknown.
func (w *run) readSettings(ctx context.Context) (problem string) {
	set := w.provider.set
	c := providerContainer(&set.Spec.Template.Spec)
	w.provider.images = []string{c.Image}
	env, secret, problem := workload.Environment(ctx, w.Kube, set.Namespace, c)
	args := append(slices.Clone(c.Command), c.Args...)
	setting := func(flag, variable, standard string) string {
		if value, found := workload.FlagValue(args, flag); found {
			return value
		}
		return cmp.Or(env[variable], standard)
	}
	list := func(flag string) []string {
		text := strings.Join(workload.FlagValues(args, flag), ",")
		return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	}
	s := &w.provider.settings
	s.VaultAddress = cmp.Or(strings.Join(workload.FlagValues(args, "vault-addr"), ","), env["VAULT_ADDR"])
	s.VaultNamespace = setting("vault-namespace", "VAULT_NAMESPACE", "")
	s.AuthMount = strings.Trim(setting("vault-auth-mount", "", class.DefaultAuthMount), "/")
	s.Audience = setting("audience", "", class.DefaultAudience)
	s.AllowedAddresses = list("vault-allowed-addresses")
	s.AllowedAuthMounts, s.AllowedNamespaces = list("vault-allowed-auth-mounts"), list("vault-allowed-namespaces")
	w.provider.inline = list("vault-inline-auth")
	for i, mount := range w.provider.inline {
		w.provider.inline[i] = strings.Trim(mount, "/")
	}
	insecure, given := workload.FlagValue(args, "vault-insecure-http")
	if w.provider.insecure = given && insecure != "false"; !given {
		w.provider.insecure = transit.FromEnvironment(func(name string) string { return env[name] }).InsecureHTTP
	}
	if s.VaultAddress == "" && problem == "" && secret != "" {
		problem = "it may be in Secret " + secret
	}
	return problem
}

// providerContainer returns the container of the provider; others may have been injected.
func providerContainer(spec *corev1.PodSpec) corev1.Container {
	if i := slices.IndexFunc(spec.Containers, func(c corev1.Container) bool { return c.Name == "provider" }); i >= 0 {
		return spec.Containers[i]
	}
	return spec.Containers[0]
}

// checkNodes checks that each node with the driver has a ready provider.
func (w *run) checkNodes(ctx context.Context) result.Finding {
	if w.cluster.driver == nil || w.provider.set == nil {
		return result.Unknownf("the DaemonSets of driver and provider could not be read")
	}
	drivers, err := w.listPods(ctx, w.cluster.driver)
	if err != nil {
		return result.RequestFailed("list pods -n "+w.cluster.driver.Namespace, err)
	}
	providers, err := w.listPods(ctx, w.provider.set)
	if err != nil {
		return result.RequestFailed("list pods -n "+w.provider.set.Namespace, err)
	}
	serving, notReady, images := map[string]bool{}, map[string]*corev1.Pod{}, map[string]bool{}
	for i := range providers {
		p := &providers[i]
		if ready(p) {
			serving[p.Spec.NodeName] = true
			images[providerContainer(&p.Spec).Image] = true
		} else {
			notReady[p.Spec.NodeName] = p
		}
	}
	if len(images) > 0 {
		w.provider.images = nil
		for image := range images {
			w.provider.images = append(w.provider.images, image)
		}
		slices.Sort(w.provider.images)
	}
	onDriver := map[string]bool{}
	for _, p := range drivers {
		onDriver[p.Spec.NodeName] = true
	}
	namespace := w.provider.set.Namespace
	var without, inspect []string
	for node := range onDriver {
		if !serving[node] {
			without = append(without, node)
		}
	}
	slices.Sort(without)
	if missing := slices.ContainsFunc(without, func(node string) bool { return notReady[node] == nil }); missing {
		if f, found := workload.OfDaemonSet(w.provider.set).Refused(ctx, w.Kube, time.Time{}); found {
			return f
		}
	}
	for i, node := range without {
		p := notReady[node]
		if p == nil {
			without[i] = node + " (none)"
			inspect = []string{result.Command("kubectl", "-n", namespace, "describe", "daemonset", w.provider.set.Name)}
			continue
		}
		without[i] = fmt.Sprintf("%s (%s: %s)", node, p.Name, workload.WhyNotReady(p))
		if len(inspect) == 0 {
			inspect = []string{result.Command("kubectl", "-n", namespace, "describe", "pod", p.Name),
				result.Command("kubectl", "-n", namespace, "logs", p.Name)}
		}
	}
	if len(without) > 0 {
		return result.Brokenf("no ready provider on %d of %d nodes with the driver: %s", len(without), len(onDriver),
			result.Clip(strings.Join(without, ", "))).WithInspect(inspect...)
	}
	if node := w.podNode(ctx); node != "" && !onDriver[node] {
		return result.Brokenf("the driver does not run on node %s, where the pod is", node).
			WithInspect(result.Command("kubectl", "-n", w.cluster.driver.Namespace, "describe", "daemonset",
				w.cluster.driver.Name), result.Command("kubectl", "describe", "node", node)).
			WithAdvice("its node selector and tolerations must match that node")
	}
	return result.OKf("a ready provider on each of %d nodes with the driver", len(onDriver))
}

func (w *run) listPods(ctx context.Context, set *appsv1.DaemonSet) ([]corev1.Pod, error) {
	list, err := w.Kube.CoreV1().Pods(set.Namespace).
		List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(set.Spec.Selector)})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		return p.Spec.NodeName == "" || p.DeletionTimestamp != nil
	}), nil
}

func ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func (w *run) checkVersion(context.Context) result.Finding {
	if len(w.provider.images) == 0 {
		return result.Unknownf("the image of the provider could not be read")
	}
	images := strings.Join(w.provider.images, ", ")
	if len(w.provider.images) > 1 {
		return result.OKf("%s", images).WithWarning("the nodes run different versions: an update may be in progress")
	}
	theirs, ours := imageVersion(images), w.Version
	t, theirErr := version.ParseGeneric(theirs)
	o, ourErr := version.ParseGeneric(ours)
	switch {
	case ourErr != nil || o.Major() == 0 && o.Minor() == 0 && o.Patch() == 0: // v0.0.0-devel, v0.0.0-gCOMMIT
		return result.OKf("%s; not compared, as this program is a development build", images)
	case theirErr != nil:
		return result.Unknownf("the image %s of the provider does not have its version", images)
	case t.Major() == o.Major() && t.Minor() == o.Minor():
		return result.OKf("provider %s, this program %s", theirs, ours)
	}
	return result.OKf("provider %s, this program %s", theirs, ours).
		WithWarning("the versions differ: one may not support a parameter of the other")
}

// imageVersion returns the tag of an image; empty for none.
func imageVersion(image string) string {
	image, _, _ = strings.Cut(image, "@")
	slash := strings.LastIndex(image, "/")
	if colon := strings.LastIndex(image, ":"); colon > slash {
		return image[colon+1:]
	}
	return ""
}
