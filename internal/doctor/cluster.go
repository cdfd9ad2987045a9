package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/doctor/workload"
)

const (
	driverName = "secrets-store.csi.k8s.io"
	driverAPI  = "/apis/secrets-store.csi.x-k8s.io/v1"

	// The manifests of the driver's release.
	driverRelease = "https://raw.githubusercontent.com/kubernetes-sigs/secrets-store-csi-driver/v1.6.1/deploy/"

	// Quoted, as the brackets are a pattern in zsh.
	installDriver = "helm install csi-secrets-store secrets-store-csi-driver -n kube-system" +
		" --repo https://kubernetes-sigs.github.io/secrets-store-csi-driver/charts" +
		" --set 'enableSecretRotation=true,rotationPollInterval=0s,tokenRequests[0].audience=vault'"
)

// clusterInfo is what the checks found in the cluster.
type clusterInfo struct {
	daemonSets []appsv1.DaemonSet // of all namespaces, or else of those where they usually are
	everywhere bool
	driver     *appsv1.DaemonSet
	csi        *storagev1.CSIDriver
}

// checkInstallation checks what all pods share.
func (w *run) checkInstallation(ctx context.Context) {
	w.check(ctx, "", "cluster", nil, w.checkCluster)
	w.check(ctx, "", "crds", []string{"cluster"}, w.checkCRDs)
	w.check(ctx, "", "driver", []string{"cluster"}, w.checkDriver)
	w.check(ctx, "", "rotation", []string{"driver"}, w.checkRotation)
	w.check(ctx, "", "csidriver", []string{"cluster"}, w.checkCSIDriver)
	w.check(ctx, "", "provider", []string{"cluster"}, w.checkProvider)
	w.check(ctx, "", "token-requests", []string{"csidriver"}, w.checkTokenRequests)
	w.check(ctx, "", "socket-directory", []string{"provider"}, w.checkSocketDirectory)
	w.check(ctx, "", "driver-nodes", []string{"driver"}, w.checkRegistration)
	w.check(ctx, "", "provider-nodes", []string{"driver", "provider"}, w.checkNodes)
	w.check(ctx, "", "rotator", []string{"cluster"}, w.rotation.CheckRotator)
	w.check(ctx, "", "version", []string{"provider"}, w.checkVersion)
	w.check(ctx, "", "vault", nil, w.checkVault)
	w.check(ctx, "", "vault-seal", []string{"vault"}, w.checkSeal)
	w.check(ctx, "", "vault-clock", []string{"vault"}, w.checkClock)
	if w.Pod == "" && w.Class == "" {
		w.check(ctx, "", "auth-mount", []string{"vault", "vault-seal"}, func(ctx context.Context) result.Finding {
			return w.checkAuthMount(ctx, w.vault.namespace, w.provider.settings.AuthMount)
		})
	}
	w.check(ctx, "", "inline-auth", []string{"provider", "vault", "vault-seal"}, w.checkInlineAuth)
	w.check(ctx, "", "rotator-run", []string{"cluster", "rotator"}, w.rotation.CheckRun)
	w.check(ctx, "", "rotator-role", []string{"cluster", "vault", "vault-seal"}, w.checkRotatorRole)
	w.check(ctx, "", "retirement", []string{"rotator-run"}, w.rotation.CheckRetirement)
	w.check(ctx, "", "exporter", []string{"cluster"}, w.rotation.CheckExporter)
	w.check(ctx, "", "references", []string{"cluster"}, w.checkReferences)
	if w.Pod == "" && w.Class == "" {
		w.check(ctx, "", "pods", []string{"cluster"}, w.checkPods)
	}
}

func (w *run) checkCluster(ctx context.Context) result.Finding {
	const advice = "check KUBECONFIG and --context"
	if w.Kube == nil {
		return result.Brokenf("%s", result.OneLine(w.KubeError)).WithInspect("kubectl config get-contexts").WithAdvice(advice)
	}
	raw, err := w.raw(ctx, "/version")
	var version struct {
		Git string `json:"gitVersion"`
	}
	switch {
	case err == nil && json.Unmarshal(raw, &version) == nil && version.Git != "":
		return result.OKf("Kubernetes %s at %s", version.Git, w.KubeHost)
	case err == nil:
		return result.Brokenf("the server at %s is not an API server", w.KubeHost).WithInspect("kubectl " +
			"cluster-info").WithAdvice(advice)
	case apierrors.IsForbidden(err):
		return result.OKf("API server at %s", w.KubeHost)
	case apierrors.IsUnauthorized(err):
		return result.Brokenf("the API server at %s does not accept your credentials: %s", w.KubeHost, result.OneLine(err)).
			WithInspect("kubectl auth whoami").WithAdvice("log in to the cluster again; " + advice)
	}
	return result.Brokenf("%s cannot be reached: %s", w.KubeHost, result.OneLine(err)).WithInspect("kubectl " +
		"cluster-info").WithAdvice(advice)
}

// raw reads a path without a typed client.
func (w *run) raw(ctx context.Context, path string) ([]byte, error) {
	return w.Kube.Discovery().RESTClient().Get().AbsPath(path).Do(ctx).Raw()
}

func (w *run) checkCRDs(ctx context.Context) result.Finding {
	// Every user may list the kinds; only administrators may read the definitions.
	raw, err := w.raw(ctx, driverAPI)
	if apierrors.IsNotFound(err) {
		return result.Brokenf("the cluster has no kind SecretProviderClass (secrets-store.csi.x-k8s.io/v1): the driver " +
			"is not installed").WithFix(installDriver)
	}
	if err != nil {
		return result.RequestFailed("get "+driverAPI, err)
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(raw, &list); err != nil {
		return result.Unknownf("the API server's list of kinds cannot be read")
	}
	var missing []string
	for _, kind := range []string{"SecretProviderClass", "SecretProviderClassPodStatus"} {
		if !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Kind == kind }) {
			missing = append(missing, kind)
		}
	}
	if len(missing) > 0 {
		f := result.Brokenf("the cluster lacks the kind %s of the driver", strings.Join(missing, " and "))
		for _, kind := range missing {
			f = f.WithFix(result.Command("kubectl", "create", "-f",
				driverRelease+"secrets-store.csi.x-k8s.io_"+strings.ToLower(kind)+"es.yaml"))
		}
		return f
	}
	return result.OKf("SecretProviderClass and SecretProviderClassPodStatus")
}

// listDaemonSets lists the DaemonSets once, for driver and provider.
func (w *run) listDaemonSets(ctx context.Context) error {
	if w.cluster.daemonSets != nil {
		return nil
	}
	all, err := w.Kube.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	if err == nil {
		w.cluster.daemonSets, w.cluster.everywhere = append([]appsv1.DaemonSet{}, all.Items...), true
		return nil
	}
	if !apierrors.IsForbidden(err) {
		return err
	}
	seen := false
	for _, namespace := range []string{"kube-system", w.ProviderNamespace} {
		some, err := w.Kube.AppsV1().DaemonSets(namespace).List(ctx, metav1.ListOptions{})
		if err == nil {
			w.cluster.daemonSets, seen = append(w.cluster.daemonSets, some.Items...), true
		}
	}
	if seen {
		return nil
	}
	return err
}

func (w *run) checkDriver(ctx context.Context) result.Finding {
	if err := w.listDaemonSets(ctx); err != nil {
		return result.RequestFailed("list daemonsets.apps -A", err)
	}
	for i := range w.cluster.daemonSets {
		set := &w.cluster.daemonSets[i]
		// Windows nodes have a DaemonSet of their own, and no provider.
		if set.Spec.Template.Spec.NodeSelector["kubernetes.io/os"] != "windows" && driverContainer(set) >= 0 {
			w.cluster.driver = set
			break
		}
	}
	set := w.cluster.driver
	switch {
	case set == nil && w.cluster.everywhere:
		return result.Brokenf("no DaemonSet has a container secrets-store or a flag --provider-volume: the driver is not " +
			"installed").WithFix(installDriver)
	case set == nil:
		return result.Unknownf("it is not in the namespaces that you may read").
			WithAdvice("ask someone with that right: kubectl auth can-i list daemonsets.apps -A")
	case set.Status.DesiredNumberScheduled == 0:
		return result.Brokenf("DaemonSet %s/%s runs on no node", set.Namespace, set.Name).
			WithInspect(result.Command("kubectl", "-n", set.Namespace, "describe", "daemonset", set.Name))
	case set.Status.NumberReady < set.Status.DesiredNumberScheduled:
		if f, found := workload.OfDaemonSet(set).Refused(ctx, w.Kube, time.Time{}); found {
			return f
		}
		return result.Brokenf("DaemonSet %s/%s is ready on %d of %d nodes", set.Namespace, set.Name, set.Status.NumberReady,
			set.Status.DesiredNumberScheduled).
			WithInspect(result.Command("kubectl", "-n", set.Namespace, "describe", "pods", "-l",
				metav1.FormatLabelSelector(set.Spec.Selector)))
	}
	return result.OKf("DaemonSet %s/%s, ready on %d of %d nodes: %s", set.Namespace, set.Name, set.Status.NumberReady,
		set.Status.DesiredNumberScheduled,
		set.Spec.Template.Spec.Containers[driverContainer(set)].Image)
}

// driverContainer returns the index of the driver's container; -1 if the DaemonSet has none. The manifest and the chart
// of the driver name it secrets-store; OpenShift's operator does not, but sets the driver's flag.
func driverContainer(set *appsv1.DaemonSet) int {
	containers := set.Spec.Template.Spec.Containers
	if i := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == "secrets-store" }); i >= 0 {
		return i
	}
	return slices.IndexFunc(containers, func(c corev1.Container) bool {
		_, found := workload.FlagValue(c.Args, "provider-volume")
		return found
	})
}

func (w *run) checkRotation(context.Context) result.Finding {
	set := w.cluster.driver
	if set == nil {
		return result.Unknownf("the driver's flags could not be read")
	}
	index := driverContainer(set)
	c := &set.Spec.Template.Spec.Containers[index]
	on, found := workload.FlagValue(c.Args, "enable-secret-rotation")
	if !found || on == "false" {
		return result.OKf("off").
			WithWarning("running pods do not see new values: set the driver's --enable-secret-rotation=true and " +
				"--rotation-poll-interval=0s")
	}
	text, _ := workload.FlagValue(c.Args, "rotation-poll-interval")
	// Without the flag it is two minutes.
	if interval, err := time.ParseDuration(cmp.Or(text, "2m")); err == nil && interval == 0 {
		return result.OKf("on, and each attempt of a mount reaches the provider")
	}
	at := fmt.Sprintf("/spec/template/spec/containers/%d/", index)
	const zero = "--rotation-poll-interval=0s"
	patch := []operation{{"test", at + "name", c.Name}, {"add", at + "args/-", zero}}
	if arg := slices.IndexFunc(c.Args, func(arg string) bool {
		return strings.HasPrefix(arg, "--rotation-poll-interval=")
	}); arg >= 0 {
		place := fmt.Sprintf("%sargs/%d", at, arg)
		patch = []operation{{"test", place, c.Args[arg]}, {"replace", place, zero}}
	}
	return result.Brokenf("the driver's --rotation-poll-interval is %s and not 0s: an interrupted mount can leave a "+
		"pod with an empty volume (docs/failures.md)", cmp.Or(text, "its default of 2m")).
		WithFix(result.Command("kubectl", "-n", set.Namespace, "patch", "daemonset", set.Name, "--type=json", "-p",
			jsonPatch(patch))).
		WithAdvice("with Helm, also set rotationPollInterval: 0s in the values; the driver then calls its other providers " +
			"about once a minute for each volume too")
}

func (w *run) checkCSIDriver(ctx context.Context) result.Finding {
	driver, err := w.Kube.StorageV1().CSIDrivers().Get(ctx, driverName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		manifest := `{"apiVersion":"storage.k8s.io/v1","kind":"CSIDriver","metadata":{"name":"` + driverName +
			`"},"spec":{"podInfoOnMount":true,"attachRequired":false,` +
			`"volumeLifecycleModes":["Ephemeral"],"requiresRepublish":true,"tokenRequests":[{"audience":"vault"}]}}`
		return result.Brokenf("CSIDriver %s does not exist", driverName).
			WithFix("echo " + display.ShellWord(manifest) + " | kubectl create -f -")
	}
	if err != nil {
		return result.RequestFailed("get csidrivers.storage.k8s.io", err)
	}
	w.cluster.csi = driver
	var problems []string
	var patch []operation
	if p := driver.Spec.PodInfoOnMount; p == nil || !*p {
		problems = append(problems, "podInfoOnMount is not true: the provider cannot know the pod of a volume")
		patch = append(patch, operation{"add", "/spec/podInfoOnMount", true})
	}
	if r := driver.Spec.RequiresRepublish; r == nil || !*r {
		problems = append(problems, "requiresRepublish is not true: running pods do not see new values")
		patch = append(patch, operation{"add", "/spec/requiresRepublish", true})
	}
	if len(problems) > 0 {
		return result.Brokenf("%s", strings.Join(problems, "; ")).WithFix(patchCSIDriver(patch)).WithAdvice(ownerAdvice)
	}
	return result.OKf("%s with podInfoOnMount and requiresRepublish", driverName)
}

// ownerAdvice accompanies each command that changes an object of the driver.
const ownerAdvice = "a Helm release, an operator or a cloud provider that manages the driver may undo this: set it " +
	"there too"

func patchCSIDriver(patch []operation) string {
	return result.Command("kubectl", "patch", "csidriver", driverName, "--type=json", "-p", jsonPatch(patch))
}

// addTokenRequests returns the patch that adds token requests to the existing ones. The driver may have other
// providers, and tokens for them, so nothing is replaced: if the list has changed meanwhile, the patch fails.
func addTokenRequests(existing, missing []storagev1.TokenRequest) []operation {
	const list = "/spec/tokenRequests"
	if len(existing) == 0 {
		return []operation{{"test", list, nil}, {"add", list, missing}}
	}
	patch := []operation{{"test", list, existing}}
	for _, request := range missing {
		patch = append(patch, operation{"add", list + "/-", request})
	}
	return patch
}

// checkTokenRequests checks whether the kubelet requests the tokens: one for Vault, and one for the
// API server where ciphertext is read as the pod.
func (w *run) checkTokenRequests(ctx context.Context) result.Finding {
	if w.cluster.csi == nil {
		return result.Unknownf("the CSIDriver could not be read")
	}
	wanted, asPod := w.audiences(ctx)
	var missing, foreign, have []string
	requests := w.cluster.csi.Spec.TokenRequests
	var added []storagev1.TokenRequest
	has := func(audience string) bool {
		return slices.ContainsFunc(requests, func(r storagev1.TokenRequest) bool { return r.Audience == audience })
	}
	for _, r := range requests {
		have = append(have, audienceName(r.Audience))
	}
	for _, audience := range wanted {
		if !has(audience) {
			missing = append(missing, audienceName(audience))
			if audience != w.provider.settings.Audience {
				foreign = append(foreign, audienceName(audience))
			}
			added = append(added, storagev1.TokenRequest{Audience: audience})
		}
	}
	if len(foreign) > 0 {
		// No command: a class can name any audience, such as that of the API server, and the driver
		// would get tokens for it of every pod with a volume.
		return result.Brokenf("tokenRequests of the CSIDriver lacks the audience %s (it has %s): the provider gets no token "+
			"to log in with",
			strings.Join(missing, ", "), cmp.Or(strings.Join(have, ", "), "none")).
			WithAdvice("only the class asks for the audience " + strings.Join(foreign, ", ") +
				": set its parameter audience to one that the CSIDriver has, " +
				"or leave it out; the operator of the driver decides about others, as the driver gets tokens " +
				"for them of every pod with a volume")
	}
	if len(missing) > 0 {
		return result.Brokenf("tokenRequests of the CSIDriver lacks the audience %s (it has %s): the provider gets no token "+
			"to log in with", strings.Join(missing, ", "), cmp.Or(strings.Join(have, ", "), "none")).
			WithFix(patchCSIDriver(addTokenRequests(requests, added))).WithAdvice(ownerAdvice)
	}
	if asPod && !has("") {
		// No command: one pod does not justify that the driver gets tokens for the API server of every
		// pod with a volume.
		return result.Brokenf("the volume names no Secret in nodePublishSecretRef, and tokenRequests of the CSIDriver lacks "+
			"the audience %s (it has %s): the Secret cannot be read as the pod", audienceName(""), strings.Join(have, ", ")).
			WithAdvice("name the ciphertext Secret in nodePublishSecretRef of the pod's volume; docs/install.md " +
				"describes how pods read it with their own token instead")
	}
	return result.OKf("the kubelet requests tokens for %s", strings.Join(have, ", "))
}

func audienceName(audience string) string {
	if audience == "" {
		return `"" (the API server)`
	}
	return audience
}
