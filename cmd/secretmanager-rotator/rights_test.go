package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/vaultsetup"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// applyRBAC creates the objects of a manifest, in the namespace unless they have one. The
// file is relative to manifests/rotator.
func applyRBAC(t *testing.T, kube kubernetes.Interface, file, namespace string) {
	t.Helper()
	text, err := os.ReadFile("../../manifests/rotator/" + file)
	if err != nil {
		t.Fatal(err)
	}
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var raw json.RawMessage
		if err := decoder.Decode(&raw); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		var kind metav1.TypeMeta
		if err := json.Unmarshal(raw, &kind); err != nil {
			t.Fatal(err)
		}
		rbac, opts := kube.RbacV1(), metav1.CreateOptions{}
		switch kind.Kind {
		case "Role":
			_, err = rbac.Roles(namespace).Create(t.Context(), decode[rbacv1.Role](t, raw), opts)
		case "RoleBinding":
			_, err = rbac.RoleBindings(namespace).Create(t.Context(), decode[rbacv1.RoleBinding](t, raw), opts)
		case "ClusterRole":
			_, err = rbac.ClusterRoles().Create(t.Context(), decode[rbacv1.ClusterRole](t, raw), opts)
		case "ClusterRoleBinding":
			_, err = rbac.ClusterRoleBindings().Create(t.Context(), decode[rbacv1.ClusterRoleBinding](t, raw), opts)
		case "ConfigMap":
			_, err = kube.CoreV1().ConfigMaps(namespace).Create(t.Context(), decode[corev1.ConfigMap](t, raw), opts)
		case "Lease":
			_, err = kube.CoordinationV1().Leases(namespace).Create(t.Context(), decode[coordinationv1.Lease](t, raw), opts)
		default:
			t.Fatalf("%s has a %s", file, kind.Kind)
		}
		if err != nil && !(apierrors.IsAlreadyExists(err) && file == "state.yaml") { // of another test
			t.Fatal(err)
		}
	}
}

func decode[T any](t *testing.T, raw []byte) *T {
	t.Helper()
	out := new(T)
	if err := json.Unmarshal(raw, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRights verifies that the roles of the manifests and the policy of vault-setup are
// sufficient to rotate, rewrap, keep the state in the ConfigMap and the Lease of the
// manifests, and record Events, and that the rotator has no other permissions.
func TestRights(t *testing.T) {
	const account = "secretmanager-rotator" // the name in the manifests
	f := newFixture(t)
	admin := f.Kube
	f.API.CreateServiceAccount(t, f.state, account)
	for _, ns := range []string{"rights-a", "rights-b", "rights-out"} {
		f.API.CreateNamespace(t, ns)
	}
	applyRBAC(t, admin, "clusterrole.yaml", "")
	applyRBAC(t, admin, "role.yaml", rotator.DefaultStateNamespace)
	applyRBAC(t, admin, "state.yaml", rotator.DefaultStateNamespace)
	applyRBAC(t, admin, "namespace/rolebinding.yaml", "rights-a")
	applyRBAC(t, admin, "namespace/rolebinding.yaml", "rights-b")

	setup := vaultsetup.Setup{Key: ciphertext.Key{Mount: "transit", Name: f.Key}}
	token := ""
	for _, p := range setup.Policies() {
		if strings.Contains(p.Name, "rotator") {
			token = f.Token(p.HCL())
		}
	}
	for _, ns := range []string{"rights-a", "rights-b"} {
		f.store(ns, "good", "fixed")
	}
	f.makeImmutable("rights-b", "fixed")

	config := rest.AnonymousClientConfig(f.API.Config)
	config.BearerToken = f.API.ServiceAccountToken(t, f.state, account, "", time.Hour)
	kubeconfig := writeKubeconfig(t, config)
	env := map[string]string{"VAULT_ADDR": f.Vault.Address, "VAULT_TOKEN": token}
	args := []string{"--kubeconfig=" + kubeconfig, "--transit-key=" + f.Key, "-n=rights-a,rights-b", "--rotate=never",
		"--settle=0s"}
	for run := 1; run <= 2; run++ { // the second run updates the objects of the first
		f.RotateKey()
		code, stdout, stderr := call(t.Context(), env, args...)
		var report rotator.Report
		if err := json.Unmarshal([]byte(stdout), &report); err != nil || len(report.Keys) != 1 {
			t.Fatalf("run %d: code %d, %v: %s%s", run, code, err, stdout, stderr)
		}
		k := report.Keys[0]
		if code != 1 || k.Target != run+1 || k.Rewrapped != 3 || k.Unresolved.Count != 1 || k.Failed != 1 || k.Oldest != 1 {
			t.Errorf("run %d: code %d, %s%s", run, code, stdout, stderr)
		}
		if strings.Contains(stderr, "forbidden") || strings.Contains(stderr, "is still held") {
			t.Errorf("run %d: a permission is missing: %s", run, stderr)
		}
		events, err := admin.CoreV1().Events("rights-b").List(t.Context(), metav1.ListOptions{})
		if err != nil || len(events.Items) != 1 || events.Items[0].InvolvedObject.Name != "fixed" ||
			int(events.Items[0].Count) != run {
			t.Errorf("run %d: %v, events %+v", run, err, events)
		}
	}

	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	bound := []string{"create events", "get events", "get secrets", "list secrets", "patch secrets", "update events"}
	own := []string{"create events", "get leases.coordination.k8s.io/secretmanager-rotation",
		"update leases.coordination.k8s.io/secretmanager-rotation"}
	for _, name := range rotator.StateNames() {
		own = append(own, "get configmaps/"+name, "update configmaps/"+name)
	}
	slices.Sort(own)
	for _, test := range []struct {
		namespace string
		may       []string
	}{{"rights-a", bound}, {"rights-out", nil}, {"", nil}, {rotator.DefaultStateNamespace, own}} {
		if diff := cmp.Diff(test.may, rights(t.Context(), t, kube, test.namespace)); diff != "" {
			t.Errorf("permissions in namespace %q (-want +got):\n%s", test.namespace, diff)
		}
	}

	// A binding for the cluster gives the same permissions in each namespace.
	applyRBAC(t, admin, "cluster/clusterrolebinding.yaml", "")
	deadline := time.Now().Add(30 * time.Second)
	for !slices.Equal(rights(t.Context(), t, kube, "rights-out"), bound) {
		if time.Now().After(deadline) {
			t.Fatalf("permissions in a namespace by the binding for the cluster: %q", rights(t.Context(), t, kube, "rights-out"))
		}
	}
	// Other tests of the package list all namespaces.
	for _, ns := range []string{"rights-a", "rights-b"} {
		if err := admin.CoreV1().Secrets(ns).DeleteCollection(t.Context(), metav1.DeleteOptions{},
			metav1.ListOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// rights returns the permissions of the client, from a list of verbs and resources.
func rights(ctx context.Context, t *testing.T, kube kubernetes.Interface, namespace string) (may []string) {
	t.Helper()
	resources := []authorizationv1.ResourceAttributes{{Resource: "secrets"}, {Resource: "configmaps"},
		{Resource: "events"}, {Resource: "pods"}, {Resource: "pods", Subresource: "exec"}, {Resource: "nodes"},
		{Resource: "serviceaccounts"}, {Resource: "serviceaccounts", Subresource: "token"},
		{Group: "coordination.k8s.io", Resource: "leases"},
		{Group: "coordination.k8s.io", Resource: "leases", Name: rotator.StateName},
		{Group: rbacv1.GroupName, Resource: "roles"}, {Group: rbacv1.GroupName, Resource: "rolebindings"},
		{Group: "batch", Resource: "cronjobs"}, {Group: "batch", Resource: "cronjobs", Name: "secretmanager-rotator"},
		{Group: "secrets-store.csi.x-k8s.io", Resource: "secretproviderclasses"},
	}
	for _, name := range rotator.StateNames() {
		resources = append(resources, authorizationv1.ResourceAttributes{Resource: "configmaps", Name: name})
	}
	for _, resource := range resources {
		for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection",
			"impersonate", "bind", "escalate"} {
			if resource.Name != "" && verb == "create" {
				continue // RBAC cannot limit create by name
			}
			attributes := resource
			attributes.Verb, attributes.Namespace = verb, namespace
			answer, err := kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx,
				&authorizationv1.SelfSubjectAccessReview{
					Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &attributes}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if !answer.Status.Allowed {
				continue
			}
			what := resource.Resource
			for _, part := range []struct{ before, text string }{{".", resource.Group}, {"/", resource.Subresource},
				{"/", resource.Name}} {
				if part.text != "" {
					what += part.before + part.text
				}
			}
			may = append(may, fmt.Sprintf("%s %s", verb, what))
		}
	}
	slices.Sort(may)
	return may
}

func writeKubeconfig(t *testing.T, config *rest.Config) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{
			"c": {Server: config.Host, CertificateAuthority: config.CAFile, CertificateAuthorityData: config.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {Token: config.BearerToken}},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "x",
	}, file)
	if err != nil {
		t.Fatal(err)
	}
	return file
}
