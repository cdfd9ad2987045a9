package cluster

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/secretmanager-io/secretmanager/test/e2e/inputs"
)

const (
	driverName      = "secrets-store.csi.k8s.io"
	driverNamespace = "kube-system"
	driverDaemonSet = "csi-secrets-store"
)

// driverManifests are files of the driver's folder deploy/, in the order in which
// they are applied.
var driverManifests = []string{
	"secrets-store.csi.x-k8s.io_secretproviderclasses.yaml",
	"secrets-store.csi.x-k8s.io_secretproviderclasspodstatuses.yaml",
	"rbac-secretproviderclass.yaml",
	"rbac-secretprovidersyncing.yaml",
	"csidriver.yaml",
	"secrets-store-csi-driver.yaml",
}

// driverFlags are set on the driver in place of the manifest's.
var driverFlags = map[string]string{
	"--enable-secret-rotation": "true",
	// With the kubelet's syncFrequency of as much, a change is seen within a test's patience.
	"--rotation-poll-interval": "10s",
}

// tokenAudiences are whom the kubelet makes tokens of a pod for: Vault, and the
// API server (the empty one).
var tokenAudiences = []string{"vault", ""}

// applyDriver installs the Secrets Store CSI driver from its released manifests.
func (c *Cluster) applyDriver(ctx context.Context) error {
	dir, err := inputs.ModuleDir(ctx, filepath.Join(c.root, "test", "driver"), "sigs.k8s.io/secrets-store-csi-driver")
	if err != nil {
		return err
	}
	for _, file := range driverManifests {
		text, err := os.ReadFile(filepath.Join(dir, "deploy", file))
		if err != nil {
			return fmt.Errorf("reading the driver's manifest: %w", err)
		}
		if err := c.ApplyYAML(ctx, string(text), editCSIDriver, c.editDriver); err != nil {
			return err
		}
	}
	return nil
}

// waitDriver waits until the driver runs and the kubelet knows it.
func (c *Cluster) waitDriver(ctx context.Context) error {
	if err := c.WaitDaemonSet(ctx, driverNamespace, driverDaemonSet); err != nil {
		return err
	}
	return Wait(ctx, time.Minute, "the kubelet to know the driver", func(ctx context.Context) (bool, string, error) {
		node, err := c.Client.StorageV1().CSINodes().Get(ctx, nodeName, metav1.GetOptions{})
		if err != nil {
			return false, "", err
		}
		known := slices.ContainsFunc(node.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == driverName })
		return known, fmt.Sprintf("CSINode %s does not list %s", nodeName, driverName), nil
	})
}

// editCSIDriver makes the kubelet hand over tokens of the pod, and come back for changes.
func editCSIDriver(object *unstructured.Unstructured) error {
	if object.GetKind() != "CSIDriver" {
		return nil
	}
	var requests []any
	for _, audience := range tokenAudiences {
		requests = append(requests, map[string]any{"audience": audience})
	}
	if err := unstructured.SetNestedSlice(object.Object, requests, "spec", "tokenRequests"); err != nil {
		return err
	}
	return unstructured.SetNestedField(object.Object, true, "spec", "requiresRepublish")
}

// editDriver sets the driver's flags, and its image where we built one. That image
// has no livenessprobe, so the probe goes.
func (c *Cluster) editDriver(object *unstructured.Unstructured) error {
	if object.GetKind() != "DaemonSet" {
		return nil
	}
	var set appsv1.DaemonSet
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &set); err != nil {
		return err
	}
	pod := &set.Spec.Template.Spec
	driver := slices.IndexFunc(pod.Containers, func(container corev1.Container) bool { return container.Name == "secrets-store" })
	if driver < 0 {
		return fmt.Errorf("it has no container secrets-store")
	}
	setFlags(&pod.Containers[driver], driverFlags)
	if image := c.Images.Driver; image != "" {
		pod.Containers[driver].LivenessProbe = nil
		pod.Containers = slices.DeleteFunc(pod.Containers, func(container corev1.Container) bool { return container.Name == "liveness-probe" })
		for i := range pod.Containers {
			container := &pod.Containers[i]
			container.Image = image
			if container.Name == "node-driver-registrar" {
				container.Command = []string{"/bin/node-driver-registrar"}
			}
		}
	}
	converted, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&set)
	if err != nil {
		return err
	}
	delete(converted, "status")
	object.Object = converted
	return nil
}

// setFlags sets flags of the form --name=value.
func setFlags(container *corev1.Container, flags map[string]string) {
	container.Args = slices.DeleteFunc(container.Args, func(arg string) bool {
		name, _, _ := strings.Cut(arg, "=")
		_, ours := flags[name]
		return ours
	})
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		container.Args = append(container.Args, name+"="+flags[name])
	}
}
