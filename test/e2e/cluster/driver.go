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
	"github.com/secretmanager-io/secretmanager/test/programs"
)

const (
	// Driver is the Secrets Store CSI driver with the settings of docs/install.md,
	// including those for Secrets that are read as the pod.
	Driver = "secrets-store.csi.k8s.io"
	// ThrottledDriver is a second driver with the default poll interval. Within this
	// interval, the driver treats the directory of a failed mount as mounted. Tests of
	// properties that hold with any driver use it. It also has tokens for another
	// audience, and gets all of them in the field secrets of a mount, as the driver's chart
	// does it since Kubernetes 1.35.
	ThrottledDriver = "throttled.secrets-store.csi.k8s.io"
	// PlainDriver is a third driver as its own manifests install it, except for the tokens: it
	// does not repeat mounts.
	PlainDriver = "plain.secrets-store.csi.k8s.io"
	// OtherAudience is the other audience of ThrottledDriver.
	OtherAudience = "https://vault.example.org"

	// DriverNamespace is the namespace of the drivers.
	DriverNamespace = "kube-system"
	// DriverSelector selects the pods of Driver.
	DriverSelector = "app=csi-secrets-store"
)

// sharedManifests and driverManifests are files in the driver's directory deploy/, in
// the order in which they are applied. The drivers share the first, and each has its own
// copy of the others.
var (
	sharedManifests = []string{
		"secrets-store.csi.x-k8s.io_secretproviderclasses.yaml",
		"secrets-store.csi.x-k8s.io_secretproviderclasspodstatuses.yaml",
		"rbac-secretproviderclass.yaml",
		"rbac-secretprovidersyncing.yaml",
	}
	driverManifests = []string{
		"csidriver.yaml",
		"secrets-store-csi-driver.yaml",
	}
)

// A driver is one of the drivers in the cluster.
type driver struct {
	name      string
	daemonSet string
	flags     map[string]string // override those of the manifest
	audiences []string          // of the pod's tokens; the empty one is the API server
	inSecrets bool              // whether the kubelet passes the tokens as secrets
	republish bool              // whether the kubelet repeats mounts
}

// asPod is the audience of the API server, which docs/install.md describes as optional.
// Some volumes of the tests have no nodePublishSecretRef and need it.
const asPod = ""

var drivers = []driver{
	{name: Driver, daemonSet: "csi-secrets-store", flags: map[string]string{
		"--enable-secret-rotation": "true",
		// Together with the kubelet's syncFrequency, this shows changes quickly.
		"--rotation-poll-interval": "0s",
	}, audiences: []string{"vault", asPod}, republish: true},
	{name: ThrottledDriver, daemonSet: "csi-secrets-store-throttled", flags: map[string]string{
		"--enable-secret-rotation": "true",
		"--drivername":             ThrottledDriver,
	}, audiences: []string{"vault", asPod, OtherAudience}, inSecrets: true, republish: true},
	{name: PlainDriver, daemonSet: "csi-secrets-store-plain", flags: map[string]string{
		"--drivername": PlainDriver,
	}, audiences: []string{"vault"}},
}

// renamed returns a manifest of the released driver with the names of this one.
func (d driver) renamed(manifest string) string {
	const name = "csi-secrets-store" // of the DaemonSet; images and roles have it in their names too
	return strings.NewReplacer(
		"name: "+name+"\n", "name: "+d.daemonSet+"\n",
		"app: "+name+"\n", "app: "+d.daemonSet+"\n",
		"/plugins/"+name+"/", "/plugins/"+d.daemonSet+"/",
		"name: "+Driver+"\n", "name: "+d.name+"\n",
	).Replace(manifest)
}

// DriverSources returns the directory with the sources of the selected version of the driver.
func DriverSources(ctx context.Context) (string, error) {
	root, err := programs.Root()
	if err != nil {
		return "", err
	}
	version, err := programs.Driver.Selected()
	if err != nil {
		return "", err
	}
	return inputs.ModuleDir(ctx, filepath.Join(root, version.Dir), "sigs.k8s.io/secrets-store-csi-driver")
}

// applyDrivers installs the drivers from the released manifests.
func (c *Cluster) applyDrivers(ctx context.Context) error {
	dir, err := DriverSources(ctx)
	if err != nil {
		return err
	}
	apply := func(file string, rename func(string) string, edits ...Edit) error {
		text, err := os.ReadFile(filepath.Join(dir, "deploy", file))
		if err != nil {
			return fmt.Errorf("reading the driver's manifest: %w", err)
		}
		return c.ApplyYAML(ctx, rename(string(text)), edits...)
	}
	for _, file := range sharedManifests {
		if err := apply(file, strings.Clone); err != nil {
			return err
		}
	}
	for _, d := range drivers {
		for _, file := range driverManifests {
			if err := apply(file, d.renamed, d.editCSIDriver, c.editDriver(d)); err != nil {
				return err
			}
		}
	}
	return nil
}

// waitDrivers waits until the drivers run and every kubelet knows them.
func (c *Cluster) waitDrivers(ctx context.Context) error {
	for _, d := range drivers {
		if err := c.WaitDaemonSet(ctx, DriverNamespace, d.daemonSet); err != nil {
			return err
		}
		err := Wait(ctx, time.Minute, "the kubelets to know the driver "+d.name,
			func(ctx context.Context) (bool, string, error) {
				nodes, err := c.Client.StorageV1().CSINodes().List(ctx, metav1.ListOptions{})
				if err != nil {
					return false, "", err
				}
				for _, node := range nodes.Items {
					if !slices.ContainsFunc(node.Spec.Drivers, func(n storagev1.CSINodeDriver) bool { return n.Name == d.name }) {
						return false, fmt.Sprintf("CSINode %s does not list it", node.Name), nil
					}
				}
				return len(nodes.Items) == c.options.nodes(), fmt.Sprintf("%d CSINodes", len(nodes.Items)), nil
			})
		if err != nil {
			return err
		}
	}
	return nil
}

// DriverLog returns the log of one of the drivers.
func (c *Cluster) DriverLog(ctx context.Context, name string) (string, error) {
	n := slices.IndexFunc(drivers, func(d driver) bool { return d.name == name })
	if n < 0 {
		return "", fmt.Errorf("no driver is called %s", name)
	}
	pods, err := c.Client.CoreV1().Pods(DriverNamespace).
		List(ctx, metav1.ListOptions{LabelSelector: "app=" + drivers[n].daemonSet})
	if err != nil {
		return "", err
	}
	var log strings.Builder
	for _, pod := range pods.Items {
		text, err := c.Logs(ctx, DriverNamespace, pod.Name, "secrets-store")
		if err != nil {
			return "", err
		}
		log.WriteString(text)
	}
	return log.String(), nil
}

// editCSIDriver makes the kubelet pass tokens of the pod, and repeat mounts if the driver does.
func (d driver) editCSIDriver(object *unstructured.Unstructured) error {
	if object.GetKind() != "CSIDriver" {
		return nil
	}
	var requests []any
	for _, audience := range d.audiences {
		requests = append(requests, map[string]any{"audience": audience})
	}
	if err := unstructured.SetNestedSlice(object.Object, requests, "spec", "tokenRequests"); err != nil {
		return err
	}
	if err := unstructured.SetNestedField(object.Object, d.inSecrets, "spec", "serviceAccountTokenInSecrets"); err != nil {
		return err
	}
	return unstructured.SetNestedField(object.Object, d.republish, "spec", "requiresRepublish")
}

// editDriver sets the driver's flags, and its image if we built one. That image has no
// livenessprobe, so the probe is removed.
func (c *Cluster) editDriver(d driver) Edit {
	return func(object *unstructured.Unstructured) error {
		if object.GetKind() != "DaemonSet" {
			return nil
		}
		var set appsv1.DaemonSet
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &set); err != nil {
			return err
		}
		if err := c.editDaemonSet(&set, d); err != nil {
			return err
		}
		converted, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&set)
		if err != nil {
			return err
		}
		delete(converted, "status")
		object.Object = converted
		return nil
	}
}

// editDaemonSet does this with a driver's DaemonSet.
func (c *Cluster) editDaemonSet(set *appsv1.DaemonSet, d driver) error {
	pod := &set.Spec.Template.Spec
	container := slices.IndexFunc(pod.Containers, func(c corev1.Container) bool { return c.Name == "secrets-store" })
	if container < 0 {
		return fmt.Errorf("it has no container secrets-store")
	}
	setFlags(&pod.Containers[container], d.flags)
	if image := c.Images.Driver; image != "" {
		pod.Containers[container].LivenessProbe = nil
		pod.Containers = slices.DeleteFunc(pod.Containers,
			func(container corev1.Container) bool { return container.Name == "liveness-probe" })
		for i := range pod.Containers {
			container := &pod.Containers[i]
			container.Image = image
			if container.Name == "node-driver-registrar" {
				container.Command = []string{"/bin/node-driver-registrar"}
			}
		}
	}
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
