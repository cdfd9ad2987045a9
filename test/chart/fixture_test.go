package chart

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/test/testenv"
)

const driverName = "secrets-store.csi.k8s.io"

// cluster is an API server, and a Helm that uses it.
type cluster struct {
	*Helm
	api     *testenv.APIServer
	kube    kubernetes.Interface
	dynamic dynamic.Interface
	mapper  meta.RESTMapper
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	api := testenv.SharedAPIServer(t)
	kube, err := kubernetes.NewForConfig(api.Config)
	if err != nil {
		t.Fatal(err)
	}
	// The API server creates this object last, a moment after it is ready. Wait for it, so that it does not look like
	// an object that an installation left behind.
	for ctx := t.Context(); ; {
		_, err := kube.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
		if err == nil {
			break
		}
		if !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
	client, err := dynamic.NewForConfig(api.Config)
	if err != nil {
		t.Fatal(err)
	}
	kinds, err := restmapper.GetAPIGroupResources(kube.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	helm := newHelm(t)
	helm.Kubeconfig = api.Kubeconfig
	return &cluster{helm, api, kube, client, restmapper.NewDiscoveryRESTMapper(kinds)}
}

// read decodes an object and returns the client for its kind and namespace. The given namespace is the default. The
// client is nil for kinds that the API server does not have.
func (c *cluster) read(t *testing.T, text, namespace string) (*unstructured.Unstructured, dynamic.ResourceInterface) {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	kind := o.GroupVersionKind()
	mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	custom := []string{"monitoring.coreos.com", "security.openshift.io"}
	if meta.IsNoMatchError(err) && slices.Contains(custom, kind.Group) {
		return o, nil
	}
	if err != nil {
		t.Fatal(err)
	}
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return o, c.dynamic.Resource(mapping.Resource)
	}
	return o, c.dynamic.Resource(mapping.Resource).Namespace(cmp.Or(o.GetNamespace(), namespace))
}

// setDriver replaces the CSIDriver, or deletes it if driver is nil.
func (c *cluster) setDriver(t *testing.T, driver *storagev1.CSIDriver) {
	t.Helper()
	drivers := c.kube.StorageV1().CSIDrivers()
	if err := drivers.Delete(t.Context(), driverName, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	if driver == nil {
		return
	}
	if _, err := drivers.Create(t.Context(), driver, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// labelNamespace sets a label of a namespace.
func (c *cluster) labelNamespace(t *testing.T, namespace, label, value string) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, label, value)
	_, err := c.kube.CoreV1().Namespaces().Patch(
		t.Context(), namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// validDriver returns the CSIDriver in manifests/driver.
func validDriver(t *testing.T) *storagev1.CSIDriver {
	t.Helper()
	driver := &storagev1.CSIDriver{}
	if err := yaml.UnmarshalStrict([]byte(read(t, "manifests/driver/csidriver.yaml")), driver); err != nil {
		t.Fatal(err)
	}
	return driver
}

// skippedKinds are kinds that nobody creates, and that the API server warns about.
var skippedKinds = []string{"events", "endpoints", "componentstatuses"}

// allObjects returns the name of every object in the cluster, except those that the API server itself keeps writing.
func (c *cluster) allObjects(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	c.list(t, func(kind string, o *unstructured.Unstructured) {
		if !strings.HasPrefix(o.GetNamespace(), "kube-") {
			all[fmt.Sprintf("%s %s/%s", kind, o.GetNamespace(), o.GetName())] = true
		}
	})
	return all
}

// list calls a function with every object in the cluster.
func (c *cluster) list(t *testing.T, f func(kind string, o *unstructured.Unstructured)) {
	t.Helper()
	lists, err := c.kube.Discovery().ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range list.APIResources {
			if !slices.Contains(kind.Verbs, "list") || slices.Contains(skippedKinds, kind.Name) {
				continue
			}
			objects, err := c.dynamic.Resource(group.WithResource(kind.Name)).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatalf("listing %s: %v", kind.Name, err)
			}
			for i := range objects.Items {
				f(kind.Kind, &objects.Items[i])
			}
		}
	}
}
