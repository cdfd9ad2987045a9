package doctor

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
)

// checkRegistration checks that the kubelet of each node with a ready driver knows it. The driver registers below the
// kubelet's root directory, whose place is a setting of the driver's chart.
func (w *run) checkRegistration(ctx context.Context) result.Finding {
	set := w.cluster.driver
	if set == nil {
		return result.Unknownf("the DaemonSet of the driver could not be read")
	}
	pods, err := w.listPods(ctx, set)
	if err != nil {
		return result.RequestFailed("list pods -n "+set.Namespace, err)
	}
	nodes, err := w.Kube.StorageV1().CSINodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return result.RequestFailed("list csinodes.storage.k8s.io", err)
	}
	known := map[string]bool{}
	for _, node := range nodes.Items {
		known[node.Name] = slices.ContainsFunc(node.Spec.Drivers, func(d storagev1.CSINodeDriver) bool {
			return d.Name == driverName
		})
	}
	var missing []string
	for i := range pods {
		if name := pods[i].Spec.NodeName; ready(&pods[i]) && !known[name] && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return result.OKf("the kubelet of each node with the driver knows it")
	}
	slices.Sort(missing)
	f := result.Brokenf("the driver runs on %s, but the kubelet there does not know it (CSINode)",
		result.Clip(strings.Join(missing, ", ")))
	where := "the driver's volume registration-dir"
	for _, v := range set.Spec.Template.Spec.Volumes {
		if v.Name == "registration-dir" && v.HostPath != nil {
			where += " is " + v.HostPath.Path
		}
	}
	advice := where + ", which must be plugins_registry in the kubelet's root directory (kubelet --root-dir), such as " +
		"/var/lib/k0s/kubelet; only the driver uses that directory, and the provider does not"
	f = f.WithInspect(result.Command("kubectl", "-n", set.Namespace, "logs", "daemonset/"+set.Name, "-c",
		registrar(set.Spec.Template.Spec)))
	if release := set.Annotations["meta.helm.sh/release-name"]; release != "" {
		advice += "; release " + release + " of the driver's chart sets it with linux.kubeletRootDir"
	}
	return f.WithAdvice(advice)
}

// registrar returns the container that registers the driver.
func registrar(pod corev1.PodSpec) string {
	for _, c := range pod.Containers {
		if strings.Contains(c.Name, "registrar") {
			return c.Name
		}
	}
	return pod.Containers[0].Name
}
