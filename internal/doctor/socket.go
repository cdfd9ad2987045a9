package doctor

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/doctor/workload"
)

// Defaults of the driver's flags and of the provider's.
const (
	driverDirectory   = "/var/run/secrets-store-csi-providers"
	legacyDirectory   = "/etc/kubernetes/secrets-store-csi-providers"
	defaultSocketName = "secretmanager.sock"
)

// checkSocketDirectory checks that the driver looks for sockets in the directory of the node in which the provider has
// its socket.
func (w *run) checkSocketDirectory(context.Context) result.Finding {
	driver, provider := w.cluster.driver, w.provider.set
	if driver == nil || provider == nil {
		return result.Unknownf("the DaemonSets of driver and provider could not be read")
	}
	container := providerContainer(&provider.Spec.Template.Spec)
	args := append(slices.Clone(container.Command), container.Args...)
	endpoint, _ := workload.FlagValue(args, "endpoint")
	socket := cmp.Or(endpoint, path.Join(driverDirectory, defaultSocketName))
	ours := nodePath(provider, &container, path.Dir(socket))
	theirs := driverDirectories(driver)
	switch {
	case len(theirs) == 0:
		return result.Brokenf("DaemonSet %s/%s mounts none of the directories of its node in which it looks for sockets of "+
			"providers", driver.Namespace, driver.Name).
			WithInspect(result.Command("kubectl", "-n", driver.Namespace, "get", "daemonset", driver.Name, "-o", "yaml")).
			WithAdvice("the directories are --provider-volume and --additional-provider-volume-paths; each needs a volume " +
				"of type hostPath")
	case slices.Contains(theirs, ours):
		return result.OKf("%s", ours)
	}
	detail := fmt.Sprintf("the provider's socket %s is not in a directory of the node", socket)
	if ours != "" {
		detail = "the provider's socket is in " + ours + " on the nodes"
	}
	f := result.Brokenf("%s, and the driver looks for it in %s", detail, strings.Join(theirs, ", ")).
		WithAdvice("with Helm, set driver.providersDir: " + theirs[0] + " instead, and with kustomize patch the overlay, " +
			"so that the next update keeps it; a driver that has connected to the old socket finds the new one only " +
			"after a restart")
	if patch := moveSocket(provider, &container, socket, theirs[0]); patch != "" {
		f = f.WithFix(result.Command("kubectl", "-n", provider.Namespace, "patch", "daemonset", provider.Name, "--type=json",
			"-p", patch))
	}
	return f
}

// driverDirectories returns the directories of the node in which the driver looks for sockets, in its order.
func driverDirectories(driver *appsv1.DaemonSet) []string {
	c := &driver.Spec.Template.Spec.Containers[driverContainer(driver)]
	args := append(slices.Clone(c.Command), c.Args...)
	first, _ := workload.FlagValue(args, "provider-volume")
	further, found := workload.FlagValue(args, "additional-provider-volume-paths")
	if !found {
		further = legacyDirectory
	}
	var directories []string
	for _, directory := range append([]string{cmp.Or(first, driverDirectory)}, strings.Split(further, ",")...) {
		if onNode := nodePath(driver, c, strings.TrimSpace(directory)); onNode != "" {
			directories = append(directories, onNode)
		}
	}
	return directories
}

// nodePath returns the path on the node of a directory in a container; empty if it is not in a hostPath volume.
func nodePath(set *appsv1.DaemonSet, c *corev1.Container, directory string) string {
	mount, volume := hostMount(set, c, directory)
	if mount < 0 {
		return ""
	}
	m := c.VolumeMounts[mount]
	rest := strings.TrimPrefix(path.Clean(directory), path.Clean(m.MountPath))
	onNode := path.Join(set.Spec.Template.Spec.Volumes[volume].HostPath.Path, m.SubPath, rest)
	// On every distribution, /var/run is a link to /run.
	if onNode == "/run" || strings.HasPrefix(onNode, "/run/") {
		return "/var" + onNode
	}
	return onNode
}

// hostMount returns the indexes of the mount that contains a directory, and of its volume; -1 if that is no hostPath.
func hostMount(set *appsv1.DaemonSet, c *corev1.Container, directory string) (mount, volume int) {
	mount, volume = -1, -1
	directory = path.Clean(directory) + "/"
	for i, m := range c.VolumeMounts {
		inside := strings.HasPrefix(directory, strings.TrimSuffix(path.Clean(m.MountPath), "/")+"/")
		// The innermost mount has the directory.
		if inside && (mount < 0 || len(m.MountPath) > len(c.VolumeMounts[mount].MountPath)) {
			mount = i
		}
	}
	if mount < 0 {
		return -1, -1
	}
	volume = slices.IndexFunc(set.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool {
		return v.Name == c.VolumeMounts[mount].Name
	})
	if volume < 0 || set.Spec.Template.Spec.Volumes[volume].HostPath == nil {
		return -1, -1
	}
	return mount, volume
}

// moveSocket returns a JSON Patch of the DaemonSet that puts the socket into another directory of the node. It tests
// what it replaces. It is empty if the DaemonSet is not as the chart and the manifests write it.
func moveSocket(set *appsv1.DaemonSet, c *corev1.Container, socket, directory string) string {
	mount, volume := hostMount(set, c, path.Dir(socket))
	arg := slices.IndexFunc(c.Args, func(arg string) bool { return strings.HasPrefix(arg, "--endpoint=") })
	if mount < 0 || arg < 0 || path.Clean(c.VolumeMounts[mount].MountPath) != path.Dir(socket) {
		return ""
	}
	spec := set.Spec.Template.Spec
	index := slices.IndexFunc(spec.Containers, func(other corev1.Container) bool { return other.Name == c.Name })
	at := fmt.Sprintf("/spec/template/spec/containers/%d/", index)
	var patch []operation
	for _, change := range []struct {
		path     string
		old, new any
	}{
		{fmt.Sprintf("%sargs/%d", at, arg), c.Args[arg], "--endpoint=" + path.Join(directory, path.Base(socket))},
		{fmt.Sprintf("%svolumeMounts/%d/mountPath", at, mount), c.VolumeMounts[mount].MountPath, directory},
		{fmt.Sprintf("/spec/template/spec/volumes/%d/hostPath/path", volume), spec.Volumes[volume].HostPath.Path, directory},
	} {
		patch = append(patch, operation{"test", change.path, change.old}, operation{"replace", change.path, change.new})
	}
	return jsonPatch(patch)
}
