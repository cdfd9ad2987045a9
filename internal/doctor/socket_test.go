package doctor

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// daemonSet has one container with flags, and mounts directories of the node: "NODE" or "NODE:CONTAINER".
func daemonSet(name, args string, directories ...string) *appsv1.DaemonSet {
	set := &appsv1.DaemonSet{}
	set.Name, set.Namespace = name, "kube-system"
	c := corev1.Container{Name: name, Args: strings.Fields(args)}
	for _, directory := range directories {
		onNode, inContainer, found := strings.Cut(directory, ":")
		if !found {
			inContainer = onNode
		}
		v := corev1.Volume{Name: onNode}
		if onNode != "none" {
			v.HostPath = &corev1.HostPathVolumeSource{Path: onNode}
		}
		set.Spec.Template.Spec.Volumes = append(set.Spec.Template.Spec.Volumes, v)
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: onNode, MountPath: inContainer})
	}
	set.Spec.Template.Spec.Containers = []corev1.Container{c}
	return set
}

// TestSocketDirectory: what counts are the directories of the node, whatever their paths in the containers are.
func TestSocketDirectory(t *testing.T) {
	const usual, legacy = "/var/run/secrets-store-csi-providers", "/etc/kubernetes/secrets-store-csi-providers"
	const inUsual = "--endpoint=" + usual + "/secretmanager.sock"
	for name, test := range map[string]struct {
		driver, provider *appsv1.DaemonSet
		state            State
		want             string // in the detail, the fix or the advice
	}{
		"defaults": {daemonSet("secrets-store", "", legacy, usual), daemonSet("provider", "", usual), OK, usual},
		"flags": {daemonSet("secrets-store", "--provider-volume="+usual+" --additional-provider-volume-paths="+legacy,
			legacy, usual), daemonSet("provider", inUsual, usual), OK, usual},
		"legacy directory": {daemonSet("secrets-store", "", legacy, usual),
			daemonSet("provider", "--endpoint="+legacy+"/secretmanager.sock", legacy), OK, legacy},
		"a directory of a distribution": {daemonSet("secrets-store", "--provider-volume=/p", "/var/lib/vendor/p:/p"),
			daemonSet("provider", inUsual, "/var/lib/vendor/p:"+usual), OK, "/var/lib/vendor/p"},
		"container of OpenShift": {daemonSet("csi-driver", "--provider-volume="+usual, usual),
			daemonSet("provider", inUsual, usual), OK, usual},
		"link": {daemonSet("secrets-store", "", "/run/secrets-store-csi-providers:"+usual),
			daemonSet("provider", inUsual, usual), OK, usual},
		"inside a mount": {daemonSet("secrets-store", "", "/var/run"), daemonSet("provider", inUsual, usual), OK, usual},
		"driver without the directory": {daemonSet("secrets-store", "--additional-provider-volume-paths=", legacy, usual),
			daemonSet("provider", "--endpoint="+legacy+"/secretmanager.sock", legacy), Broken,
			`{"op":"replace","path":"/spec/template/spec/volumes/0/hostPath/path","value":"` + usual + `"}`},
		"old driver": {daemonSet("secrets-store", "--provider-volume="+legacy, legacy), daemonSet("provider", inUsual, usual),
			Broken, "set driver.providersDir: " + legacy},
		"other directory of the node": {daemonSet("secrets-store", "", usual),
			daemonSet("provider", inUsual, "/run/x:"+usual), Broken,
			"socket is in /var/run/x on the nodes, and the driver looks for it in " + usual},
		"no directory of the node": {daemonSet("secrets-store", "", usual), daemonSet("provider", inUsual, "none:"+usual),
			Broken, "is not in a directory of the node"},
		"nothing mounted in the driver": {daemonSet("secrets-store", ""), daemonSet("provider", inUsual, usual),
			Broken, "mounts none of the directories"},
		"unread": {nil, daemonSet("provider", inUsual, usual), Unknown, "could not be read"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTestRun(Options{})
			w.cluster.driver, w.provider.set = test.driver, test.provider
			f := w.checkSocketDirectory(t.Context())
			all := f.Detail + strings.Join(f.Fix, "") + f.Advice
			if f.State != test.state || !strings.Contains(all, test.want) {
				t.Errorf("%s: %s", f.State, all)
			}
		})
	}
}
