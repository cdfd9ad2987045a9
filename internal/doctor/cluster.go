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
)

const (
	driverName = "secrets-store.csi.k8s.io"
	driverAPI  = "/apis/secrets-store.csi.x-k8s.io/v1"

	// In quotes: to zsh the brackets are a pattern.
	installDriver = "helm upgrade --install csi-secrets-store secrets-store-csi-driver -n kube-system" +
		" --repo https://kubernetes-sigs.github.io/secrets-store-csi-driver/charts" +
		" --set 'enableSecretRotation=true,rotationPollInterval=0s,tokenRequests[0].audience=vault'"
)

// clusterSide is what was found of the cluster.
type clusterSide struct {
	daemonSets []appsv1.DaemonSet // of all namespaces, or else of the ones that they usually are in
	everywhere bool
	driver     *appsv1.DaemonSet
	csi        *storagev1.CSIDriver
}

// installation looks at what all pods share.
func (w *run) installation(ctx context.Context) {
	w.check(ctx, "", "cluster", nil, w.checkCluster)
	w.check(ctx, "", "crds", []string{"cluster"}, w.checkCRDs)
	w.check(ctx, "", "driver", []string{"cluster"}, w.checkDriver)
	w.check(ctx, "", "rotation", []string{"driver"}, w.checkRotation)
	w.check(ctx, "", "csidriver", []string{"cluster"}, w.checkCSIDriver)
	w.check(ctx, "", "provider", []string{"cluster"}, w.checkProvider)
	w.check(ctx, "", "token-requests", []string{"csidriver"}, w.checkTokenRequests)
	w.check(ctx, "", "provider-nodes", []string{"driver", "provider"}, w.checkNodes)
	w.check(ctx, "", "version", []string{"provider"}, w.checkVersion)
	w.check(ctx, "", "vault", nil, w.checkVault)
	w.check(ctx, "", "vault-seal", []string{"vault"}, w.checkSeal)
	w.check(ctx, "", "vault-clock", []string{"vault"}, w.checkClock)
	if w.Pod == "" && w.Class == "" {
		w.check(ctx, "", "auth-mount", []string{"vault", "vault-seal"}, func(ctx context.Context) finding {
			return w.checkAuthMount(ctx, w.vault.namespace, w.provider.settings.AuthMount)
		})
	}
}

func (w *run) checkCluster(ctx context.Context) finding {
	const advice = "check KUBECONFIG and --context"
	if w.Kube == nil {
		return brokenf("%s", oneLine(w.KubeError)).withFix("kubectl config get-contexts").withAdvice(advice)
	}
	raw, err := w.raw(ctx, "/version")
	var version struct {
		Git string `json:"gitVersion"`
	}
	switch {
	case err == nil && json.Unmarshal(raw, &version) == nil && version.Git != "":
		return okf("Kubernetes %s at %s", version.Git, w.KubeHost)
	case err == nil:
		return brokenf("what answers at %s is no API server", w.KubeHost).withFix("kubectl cluster-info").withAdvice(advice)
	case apierrors.IsForbidden(err):
		return okf("an API server at %s", w.KubeHost)
	case apierrors.IsUnauthorized(err):
		return brokenf("the API server at %s does not know you: %s", w.KubeHost, oneLine(err)).
			withFix("kubectl auth whoami").withAdvice("log in to the cluster again; " + advice)
	}
	return brokenf("%s cannot be reached: %s", w.KubeHost, oneLine(err)).withFix("kubectl cluster-info").withAdvice(advice)
}

// raw reads what has no typed client.
func (w *run) raw(ctx context.Context, path string) ([]byte, error) {
	return w.Kube.Discovery().RESTClient().Get().AbsPath(path).Do(ctx).Raw()
}

func (w *run) checkCRDs(ctx context.Context) finding {
	// Everybody may ask what kinds there are; the definitions are for administrators.
	raw, err := w.raw(ctx, driverAPI)
	if apierrors.IsNotFound(err) {
		return brokenf("the cluster does not know SecretProviderClasses (secrets-store.csi.x-k8s.io/v1): the driver " +
			"is not installed").withFix(installDriver)
	}
	if err != nil {
		return unseen("get "+driverAPI, err)
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(raw, &list); err != nil {
		return unknownf("the API server's list of kinds cannot be read")
	}
	var missing []string
	for _, kind := range []string{"SecretProviderClass", "SecretProviderClassPodStatus"} {
		if !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Kind == kind }) {
			missing = append(missing, kind)
		}
	}
	if len(missing) > 0 {
		return brokenf("the cluster does not know the kind %s of the driver", strings.Join(missing, " and ")).
			withFix(installDriver)
	}
	return okf("SecretProviderClass and SecretProviderClassPodStatus")
}

// listDaemonSets lists them once, for driver and provider.
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

func (w *run) checkDriver(ctx context.Context) finding {
	if err := w.listDaemonSets(ctx); err != nil {
		return unseen("list daemonsets.apps -A", err)
	}
	for i := range w.cluster.daemonSets {
		set := &w.cluster.daemonSets[i]
		// What its manifest and its chart have in common. On Windows nodes it is a
		// set of its own, and nothing of ours is.
		if set.Spec.Template.Spec.NodeSelector["kubernetes.io/os"] != "windows" && container(set, "secrets-store") != nil {
			w.cluster.driver = set
			break
		}
	}
	set := w.cluster.driver
	switch {
	case set == nil && w.cluster.everywhere:
		return brokenf("no DaemonSet has the container secrets-store: the driver is not installed").withFix(installDriver)
	case set == nil:
		return unknownf("it is not in the namespaces that you may look into").
			withAdvice("somebody who may: kubectl auth can-i list daemonsets.apps -A")
	case set.Status.DesiredNumberScheduled == 0:
		return brokenf("DaemonSet %s/%s runs on no node", set.Namespace, set.Name).
			withFix(command("kubectl", "-n", set.Namespace, "describe", "daemonset", set.Name))
	case set.Status.NumberReady < set.Status.DesiredNumberScheduled:
		return brokenf("DaemonSet %s/%s is ready on %d of %d nodes", set.Namespace, set.Name, set.Status.NumberReady,
			set.Status.DesiredNumberScheduled).
			withFix(command("kubectl", "-n", set.Namespace, "describe", "pods", "-l",
				metav1.FormatLabelSelector(set.Spec.Selector)))
	}
	return okf("DaemonSet %s/%s, ready on %d of %d nodes: %s", set.Namespace, set.Name, set.Status.NumberReady,
		set.Status.DesiredNumberScheduled,
		container(set, "secrets-store").Image)
}

func container(set *appsv1.DaemonSet, name string) *corev1.Container {
	containers := set.Spec.Template.Spec.Containers
	if i := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == name }); i >= 0 {
		return &containers[i]
	}
	return nil
}

// flagValue finds a flag among arguments, as --name=value or --name value. Of
// several the last one counts.
func flagValue(args []string, name string) (value string, found bool) {
	for i, arg := range args {
		flag := strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
		if flag == arg {
			continue
		}
		if v, ok := strings.CutPrefix(flag, name+"="); ok {
			value, found = v, true
		} else if flag == name {
			value, found = "", true
			if i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				value = args[i+1]
			}
		}
	}
	return value, found
}

func (w *run) checkRotation(context.Context) finding {
	set := w.cluster.driver
	if set == nil {
		return unknownf("the driver's flags cannot be seen")
	}
	c := container(set, "secrets-store")
	on, there := flagValue(c.Args, "enable-secret-rotation")
	if !there || on == "false" {
		return okf("off").
			withWarning("running pods do not see new values: set the driver's --enable-secret-rotation=true and " +
				"--rotation-poll-interval=0s")
	}
	text, _ := flagValue(c.Args, "rotation-poll-interval")
	// Without the flag it is two minutes.
	if interval, err := time.ParseDuration(cmp.Or(text, "2m")); err == nil && interval == 0 {
		return okf("on, and each try of a mount comes to the provider")
	}
	patch,
		index := `{"op":"add","path":"/spec/template/spec/containers/%d/args/-","value":"--rotation-poll-interval=0s"}`,
		slices.IndexFunc(
			set.Spec.Template.Spec.Containers, func(c corev1.Container) bool { return c.Name == "secrets-store" })
	if at := slices.IndexFunc(c.Args, func(arg string) bool {
		return strings.HasPrefix(arg, "--rotation-poll-interval=")
	}); at >= 0 {
		patch = strings.ReplaceAll(patch, `"add"`, `"replace"`)
		patch = strings.ReplaceAll(patch, "/-", fmt.Sprint("/", at))
	}
	return brokenf("the driver's --rotation-poll-interval is %s and not 0s: a mount that breaks off can leave a "+
		"pod with an empty volume (docs/failures.md)", cmp.Or(text, "its default of 2m")).
		withFix(command("kubectl", "-n", set.Namespace, "patch", "daemonset", set.Name, "--type=json", "-p",
			"["+fmt.Sprintf(patch, index)+"]")).
		withAdvice("with Helm also: rotationPollInterval: 0s in its values")
}

func (w *run) checkCSIDriver(ctx context.Context) finding {
	driver, err := w.Kube.StorageV1().CSIDrivers().Get(ctx, driverName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		manifest := `{"apiVersion":"storage.k8s.io/v1","kind":"CSIDriver","metadata":{"name":"` + driverName +
			`"},"spec":{"podInfoOnMount":true,"attachRequired":false,` +
			`"volumeLifecycleModes":["Ephemeral"],"requiresRepublish":true,"tokenRequests":[{"audience":"vault"}]}}`
		return brokenf("there is no CSIDriver %s", driverName).
			withFix("echo " + display.ShellWord(manifest) + " | kubectl apply -f -")
	}
	if err != nil {
		return unseen("get csidrivers.storage.k8s.io", err)
	}
	w.cluster.csi = driver
	var wrong, fields []string
	if p := driver.Spec.PodInfoOnMount; p == nil || !*p {
		wrong, fields = append(wrong, "podInfoOnMount is not true: the provider does not learn whose volume it is"),
			append(fields, `"podInfoOnMount":true`)
	}
	if r := driver.Spec.RequiresRepublish; r == nil || !*r {
		wrong, fields = append(wrong, "requiresRepublish is not true: running pods do not see new values"), append(
			fields, `"requiresRepublish":true`)
	}
	if len(wrong) > 0 {
		return brokenf("%s", strings.Join(wrong, "; ")).withFix(patchCSIDriver(strings.Join(fields, ",")))
	}
	return okf("%s with podInfoOnMount and requiresRepublish", driverName)
}

func patchCSIDriver(fields string) string {
	return command("kubectl", "patch", "csidriver", driverName, "--type=merge", "-p", `{"spec":{`+fields+`}}`)
}

// checkTokenRequests looks whether the kubelet makes the tokens: one for Vault, and
// one for the API server where ciphertext is read as the pod.
func (w *run) checkTokenRequests(ctx context.Context) finding {
	if w.cluster.csi == nil {
		return unknownf("the CSIDriver cannot be seen")
	}
	wanted, asPod := w.audiences(ctx)
	var missing, foreign, have []string
	requests := slices.Clone(w.cluster.csi.Spec.TokenRequests)
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
			requests = append(requests, storagev1.TokenRequest{Audience: audience})
		}
	}
	if len(foreign) > 0 {
		// No command: the driver would get tokens for that audience of every pod with a
		// volume, and a class can name any, such as the API server's.
		return brokenf("tokenRequests of the CSIDriver lacks the audience %s (it has %s): the provider gets no token "+
			"to log in with",
			strings.Join(missing, ", "), cmp.Or(strings.Join(have, ", "), "none")).
			withAdvice("only the class asks for the audience " + strings.Join(foreign, ", ") +
				": set its parameter audience to one that the CSIDriver has, " +
				"or leave it out; the operator of the driver decides about others, for which every pod with a volume would hand over tokens")
	}
	if len(missing) > 0 {
		fields, err := json.Marshal(requests)
		if err != nil {
			return unknownf("%s", oneLine(err))
		}
		return brokenf("tokenRequests of the CSIDriver lacks the audience %s (it has %s): the provider gets no token "+
			"to log in with", strings.Join(missing, ", "), cmp.Or(strings.Join(have, ", "), "none")).
			withFix(patchCSIDriver(`"tokenRequests":` + string(fields)))
	}
	if asPod && !has("") {
		// No command: a pod alone is no reason to give the driver tokens for the API
		// server that every pod with a volume would hand over.
		return brokenf("the volume names no Secret in nodePublishSecretRef, and tokenRequests of the CSIDriver lacks "+
			"the audience %s (it has %s): the Secret cannot be read as the pod", audienceName(""), strings.Join(have, ", ")).
			withAdvice("name the ciphertext Secret in nodePublishSecretRef of the pod's volume; how to let pods read " +
				"it with their own token instead: docs/install.md")
	}
	return okf("the kubelet makes tokens for %s", strings.Join(have, ", "))
}

func audienceName(audience string) string {
	if audience == "" {
		return `"" (the API server)`
	}
	return audience
}
