package chart

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
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

// cluster is an API server with a Helm that works on it.
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
	// The last that the API server makes by itself, a moment after it is ready: it
	// would else look like something that an installation has left.
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

// read reads an object and returns the client for its kind and namespace, which is
// the one given where it names none. Of kinds that the API server does not have
// there is no client.
func (c *cluster) read(t *testing.T, text, namespace string) (*unstructured.Unstructured, dynamic.ResourceInterface) {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	kind := o.GroupVersionKind()
	mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) && kind.Group == "monitoring.coreos.com" {
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

// setDriver makes the CSIDriver what it is given, or takes it away.
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
	if _, err := c.kube.CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// goodDriver is what manifests/driver has.
func goodDriver(t *testing.T) *storagev1.CSIDriver {
	t.Helper()
	driver := &storagev1.CSIDriver{}
	if err := yaml.UnmarshalStrict([]byte(read(t, "manifests/driver/csidriver.yaml")), driver); err != nil {
		t.Fatal(err)
	}
	return driver
}

// passedOver are kinds that nobody makes, and that the API server warns of.
var passedOver = []string{"events", "endpoints", "componentstatuses"}

// everything is the name of every object in the cluster, but for what the API server
// itself keeps writing.
func (c *cluster) everything(t *testing.T) map[string]bool {
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
			if !slices.Contains(kind.Verbs, "list") || slices.Contains(passedOver, kind.Name) {
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

// TestInstallUpgradeUninstall takes a release through its life on a real API server,
// which checks and defaults all that it is given.
func TestInstallUpgradeUninstall(t *testing.T) {
	c := newCluster(t)
	const namespace = "secretmanager-system"
	c.setDriver(t, goodDriver(t))
	c.api.CreateNamespace(t, namespace)
	c.api.CreateNamespace(t, "demo")
	before := c.everything(t)

	values := `
rotator: {namespaces: [demo]}
`
	notes, err := c.Apply(t.Context(), "install", "secretmanager", namespace, values)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"is in namespace secretmanager-system", "vault-setup --apply", "(https://vault.vault.svc:8200)", "secretmanager doctor",
		"no effect on pods of the host's network"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes do not have %q:\n%s", want, notes)
		}
	}
	for _, other := range []string{"SUSPENDED", "NOT CHECKED", "PLAIN HTTP", "--rotator-service-account"} {
		if strings.Contains(notes, other) {
			t.Errorf("the notes have %q:\n%s", other, notes)
		}
	}
	if _, err := c.kube.RbacV1().RoleBindings("demo").Get(t.Context(), "secretmanager-rotator-secrets", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}

	// What a run has left behind is not the chart's to change.
	ran, err := c.kube.CoreV1().ConfigMaps(namespace).Get(t.Context(), "secretmanager-rotation", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ran.Data = map[string]string{"run": "{}"}
	if _, err := c.kube.CoreV1().ConfigMaps(namespace).Update(t.Context(), ran, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	lease, err := c.kube.CoordinationV1().Leases(namespace).Get(t.Context(), "secretmanager-rotation", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	holder := "somebody"
	lease.Spec.HolderIdentity = &holder
	if _, err := c.kube.CoordinationV1().Leases(namespace).Update(t.Context(), lease, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	template := c.template(t, namespace)

	if _, err := c.Apply(t.Context(), "upgrade", "secretmanager", namespace, values+"vault: {address: \"https://other:8200\"}\nmonitoring: {podMonitor: {interval: 30s}}\n"); err != nil {
		t.Fatal(err)
	}
	if c.template(t, namespace) == template {
		t.Error("another address of Vault does not reach the pods: they read it at the start, and are not restarted")
	}
	c.checkState(t, namespace, holder)
	if _, err := c.Run(t.Context(), "rollback", "secretmanager", "1", "--namespace", namespace); err != nil {
		t.Fatal(err)
	}
	if got := c.template(t, namespace); got != template {
		t.Errorf("after the rollback the pods are\n%s\nand were\n%s", got, template)
	}
	c.checkState(t, namespace, holder)

	// The same again changes nothing.
	if _, err := c.Apply(t.Context(), "upgrade", "secretmanager", namespace, values); err != nil {
		t.Fatal(err)
	}
	if got := c.template(t, namespace); got != template {
		t.Errorf("the same values make other pods:\n%s\nthan\n%s", got, template)
	}

	if _, err := c.Run(t.Context(), "uninstall", "secretmanager", "--namespace", namespace); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(before, c.everything(t)); diff != "" {
		t.Errorf("install and uninstall leave (-before +after):\n%s", diff)
	}
}

// template is that of the provider's pods, as the API server has it.
func (c *cluster) template(t *testing.T, namespace string) string {
	t.Helper()
	set, err := c.kube.AppsV1().DaemonSets(namespace).Get(t.Context(), "secretmanager-provider", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(set.Spec.Template)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (c *cluster) checkState(t *testing.T, namespace, holder string) {
	t.Helper()
	state, err := c.kube.CoreV1().ConfigMaps(namespace).Get(t.Context(), "secretmanager-rotation", metav1.GetOptions{})
	if err != nil || state.Data["run"] != "{}" {
		t.Errorf("what the last run left is %v, %v", state.Data, err)
	}
	lease, err := c.kube.CoordinationV1().Leases(namespace).Get(t.Context(), "secretmanager-rotation", metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != holder {
		t.Errorf("the Lease is %+v, %v", lease.Spec, err)
	}
}

// TestOptionsOnTheAPIServer lets the API server say what it thinks of each option: it
// knows more than the types do, such as what a schedule is.
func TestOptionsOnTheAPIServer(t *testing.T) {
	c := newCluster(t)
	for _, namespace := range []string{"demo", "shop", "grafana", "options"} {
		_, err := c.kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	for _, test := range options {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			documents, err := newHelm(t).Template(t.Context(), "options", test.values)
			if err != nil {
				t.Fatal(err)
			}
			for template, texts := range documents {
				for _, text := range texts {
					o, resource := c.read(t, text, "options")
					if resource == nil {
						continue
					}
					if _, err := resource.Create(t.Context(), o, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict}); err != nil {
						t.Errorf("%s: %v", template, err)
					}
				}
			}
		})
	}
}

// TestDriverCheck: without what the product needs of the driver nothing is installed,
// and what the error says to do is enough.
func TestDriverCheck(t *testing.T) {
	c := newCluster(t)
	const namespace = "check"
	c.api.CreateNamespace(t, namespace)
	t.Cleanup(func() { c.Run(context.WithoutCancel(t.Context()), "uninstall", "check", "--namespace", namespace) })
	bare := func(edit func(*storagev1.CSIDriver)) *storagev1.CSIDriver {
		driver := goodDriver(t)
		edit(driver)
		return driver
	}
	no := false
	for _, test := range []struct {
		name   string
		driver *storagev1.CSIDriver
		values string
		want   []string // none: it would be installed
	}{
		{"no driver", nil, "", []string{"no CSIDriver " + driverName, "helm install csi-secrets-store",
			"--set 'enableSecretRotation=true,rotationPollInterval=0s,tokenRequests[0].audience=vault'\n", "driver.check=false"}},
		{"no driver, and further audiences", nil, `driver: {audiences: ["", "team-a"]}`,
			[]string{"tokenRequests[0].audience=vault,tokenRequests[1].audience=,tokenRequests[2].audience=team-a'"}},
		{"no tokens", bare(func(d *storagev1.CSIDriver) { d.Spec.TokenRequests = nil }), "",
			[]string{`tokenRequests lack the audience "vault" (they have none)`, "kubectl patch csidriver", "driver.check=false"}},
		{"only another's tokens", bare(func(d *storagev1.CSIDriver) { d.Spec.TokenRequests = []storagev1.TokenRequest{{Audience: "aws"}} }), "",
			[]string{`tokenRequests lack the audience "vault" (they have "aws")`, `{"audience":"aws"},{"audience":"vault"}`}},
		{"another audience of ours", goodDriver(t), `vault: {audience: "https://vault.example"}`, []string{`lack the audience "https://vault.example" (they have "vault")`}},
		{"audiences of classes", bare(func(d *storagev1.CSIDriver) { d.Spec.TokenRequests = []storagev1.TokenRequest{{Audience: "vault"}} }),
			`driver: {audiences: ["", "team-a"]}`, []string{`lack the audience "", "team-a"`}},
		{"all wrong at once", bare(func(d *storagev1.CSIDriver) {
			d.Spec = storagev1.CSIDriverSpec{PodInfoOnMount: &no, RequiresRepublish: &no}
		}), "",
			[]string{"tokenRequests lack", "requiresRepublish is not true", "podInfoOnMount is not true"}},
		{"no republish", bare(func(d *storagev1.CSIDriver) { d.Spec.RequiresRepublish = nil }), "", []string{"requiresRepublish is not true"}},
		{"beside what is wrong with values", nil, `vault: {ca: {secret: a, configMap: b}}`, []string{"no CSIDriver", "vault.ca.secret"}},
		{"the check turned off", nil, `driver: {check: false}`, nil},
		{"a driver as it should be", goodDriver(t), "", nil},
		{"no driver, and no provider that needs one", nil, `provider: {enabled: false}`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.setDriver(t, test.driver)
			if test.want == nil {
				notes, err := c.Apply(t.Context(), "install", "check", namespace, test.values, "--dry-run=server")
				if err != nil {
					t.Fatal(err)
				}
				if got, want := strings.Contains(notes, "THE DRIVER WAS NOT CHECKED"), strings.Contains(test.values, "check: false"); got != want {
					t.Errorf("the notes say that it was not checked: %v\n%s", got, notes)
				}
				return
			}
			_, err := c.Apply(t.Context(), "install", "check", namespace, test.values)
			if err == nil {
				t.Fatal("it is installed")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not have %q:\n%v", want, err)
				}
			}
			if sets, err := c.kube.AppsV1().DaemonSets(namespace).List(t.Context(), metav1.ListOptions{}); err != nil || len(sets.Items) > 0 {
				t.Errorf("there are %d DaemonSets, %v", len(sets.Items), err)
			}
			if test.driver == nil {
				return
			}
			// The command in the error, carried out.
			patch := regexp.MustCompile(`kubectl patch csidriver (\S+) --type=merge -p '([^']+)'`).FindStringSubmatch(err.Error())
			if patch == nil {
				t.Fatalf("the error has no command:\n%v", err)
			}
			if _, err := c.kube.StorageV1().CSIDrivers().Patch(t.Context(), patch[1], types.MergePatchType, []byte(patch[2]), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Apply(t.Context(), "install", "check", namespace, test.values, "--dry-run=server"); err != nil {
				t.Fatalf("after what the error says to do: %v", err)
			}
		})
	}
	t.Run("at an upgrade", func(t *testing.T) {
		c.setDriver(t, goodDriver(t))
		if _, err := c.Apply(t.Context(), "install", "check", namespace, ""); err != nil {
			t.Fatal(err)
		}
		c.setDriver(t, nil)
		if _, err := c.Apply(t.Context(), "upgrade", "check", namespace, "provider: {logLevel: debug}"); err == nil || !strings.Contains(err.Error(), "no CSIDriver") {
			t.Errorf("it is upgraded: %v", err)
		}
	})
	t.Run("without a cluster nothing is checked", func(t *testing.T) {
		if _, err := newHelm(t).Template(t.Context(), namespace, ""); err != nil {
			t.Error(err)
		}
	})
}

// TestNotes: the notes say what is particular to an installation.
func TestNotes(t *testing.T) {
	c := newCluster(t)
	c.setDriver(t, goodDriver(t))
	c.api.CreateNamespace(t, "notes")
	for _, test := range []struct{ values, want string }{
		{``, "THE ROTATOR IS SUSPENDED, as it may look into no namespace"},
		{`rotator: {cluster: true, suspend: true}`, "THE ROTATOR IS SUSPENDED (rotator.suspend)"},
		{`name: other`, "`provider: other`"},
		{`vault: {address: "http://vault:8200", insecureHTTP: true}`, "PLAIN HTTP TO VAULT IS ACCEPTED (vault.insecureHTTP)"},
		{`networkPolicy: {egress: {enabled: true}}`, "and to which ports they connect"},
		{`provider: {enabled: false}`, "get cronjob secretmanager-rotator"},
		{`provider: {enabled: false}`, "(rotator, exporter)"},
		{`rotator: {enabled: false}`, "(provider)"},
		{`rotator: {enabled: false}`, "secretmanager doctor --provider-namespace notes\n"},
		{`name: other`, "--rotator-service-account notes/other-rotator"},
		{`rotator: {cluster: true, vaultRole: x, retire: {enabled: true, trim: true}}`, "--rotator-role x --retire --trim"},
		{`vault: {authMount: k8s, audience: ""}
driver: {check: false}`, `--audience "" --auth-mount k8s`},
	} {
		notes, err := c.Apply(t.Context(), "install", "notes", "notes", test.values, "--dry-run=server")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(notes, test.want) {
			t.Errorf("with %s the notes do not have %q:\n%s", test.values, test.want, notes)
		}
	}
}
