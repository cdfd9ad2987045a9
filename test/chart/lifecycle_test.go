package chart

import (
	"encoding/json"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/rotator"
)

// TestInstallUpgradeUninstall installs, upgrades, rolls back and uninstalls a release on a real API server, which
// validates and defaults all objects.
func TestInstallUpgradeUninstall(t *testing.T) {
	c := newCluster(t)
	const namespace = "secretmanager-system"
	c.setDriver(t, validDriver(t))
	c.api.CreateNamespace(t, namespace)
	c.api.CreateNamespace(t, "demo")
	before := c.allObjects(t)

	values := `
rotator: {namespaces: [demo], transitKeys: [matrix]}
`
	notes, err := c.Apply(t.Context(), "install", "secretmanager", namespace, values)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"is installed in namespace secretmanager-system", "vault-setup --apply",
		"(https://vault.vault.svc:8200)", "secretmanager doctor", "no effect on pods with hostNetwork"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes do not contain %q:\n%s", want, notes)
		}
	}
	for _, unwanted := range []string{"WARNING", "--rotator-service-account"} {
		if strings.Contains(notes, unwanted) {
			t.Errorf("the notes contain %q:\n%s", unwanted, notes)
		}
	}
	_, err = c.kube.RbacV1().RoleBindings("demo").Get(t.Context(), "secretmanager-rotator-secrets", metav1.GetOptions{})
	if err != nil {
		t.Error(err)
	}

	// The chart must not change what a run wrote.
	for _, name := range rotator.StateNames() {
		c.writeState(t, namespace, name, map[string]string{"run": name})
	}
	lease, err := c.kube.CoordinationV1().Leases(namespace).Get(t.Context(), "secretmanager-rotation", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	holder := "a run"
	lease.Spec.HolderIdentity = &holder
	if _, err := c.kube.CoordinationV1().Leases(namespace).Update(t.Context(), lease, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	template := c.template(t, namespace)

	changed := values + "vault: {address: \"https://other:8200\"}\nmonitoring: {podMonitor: {interval: 30s}}\n"
	if _, err := c.Apply(t.Context(), "upgrade", "secretmanager", namespace, changed); err != nil {
		t.Fatal(err)
	}
	if c.template(t, namespace) == template {
		t.Error("the pods do not restart, so they do not use the new address of Vault")
	}
	c.checkState(t, namespace, holder)
	if _, err := c.Run(t.Context(), "rollback", "secretmanager", "1", "--namespace", namespace); err != nil {
		t.Fatal(err)
	}
	if got := c.template(t, namespace); got != template {
		t.Errorf("pods after the rollback\n%s\nand before the upgrade\n%s", got, template)
	}
	c.checkState(t, namespace, holder)

	// An upgrade with the same values changes nothing.
	if _, err := c.Apply(t.Context(), "upgrade", "secretmanager", namespace, values); err != nil {
		t.Fatal(err)
	}
	if got := c.template(t, namespace); got != template {
		t.Errorf("the same values change the pods from\n%s\nto\n%s", template, got)
	}

	if _, err := c.Run(t.Context(), "uninstall", "secretmanager", "--namespace", namespace); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(before, c.allObjects(t)); diff != "" {
		t.Errorf("objects after install and uninstall (-before +after):\n%s", diff)
	}
}

// template returns the template of the provider's pods from the API server.
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

// checkState checks the state that a run wrote.
func (c *cluster) checkState(t *testing.T, namespace, holder string) {
	t.Helper()
	for _, name := range rotator.StateNames() {
		state, err := c.kube.CoreV1().ConfigMaps(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil || state.Data["run"] != name {
			t.Errorf("ConfigMap %s of the rotator's state is %v, %v", name, state.Data, err)
		}
	}
	lease, err := c.kube.CoordinationV1().Leases(namespace).Get(t.Context(), "secretmanager-rotation", metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != holder {
		t.Errorf("the Lease is %+v, %v", lease.Spec, err)
	}
}

// TestOptionsOnAPIServer: the API server accepts each option. It validates more than the types do, such as schedules.
func TestOptionsOnAPIServer(t *testing.T) {
	c := newCluster(t)
	for _, namespace := range []string{"demo", "shop", "grafana", "options"} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
		_, err := c.kube.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{})
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
					_, err := resource.Create(t.Context(), o, metav1.CreateOptions{
						DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict,
					})
					if err != nil {
						t.Errorf("%s: %v", template, err)
					}
				}
			}
		})
	}
}

// TestNotes checks what the notes say about an installation.
func TestNotes(t *testing.T) {
	c := newCluster(t)
	c.setDriver(t, validDriver(t))
	c.api.CreateNamespace(t, "notes")
	for _, test := range []struct{ values, want string }{
		{``, "WARNING: The rotator is suspended, because it has rights in no namespace"},
		{`rotator: {transitKeys: [a]}`, "WARNING: The rotator is suspended, because it has rights in no namespace"},
		{``, "WARNING: The rotator is suspended, because no transit key is selected"},
		{`rotator: {cluster: true}`, "WARNING: The rotator is suspended, because no transit key is selected"},
		{`rotator: {cluster: true, transitKeys: [a], suspend: true}`,
			"WARNING: The rotator is suspended (rotator.suspend)"},
		{`rotator: {admissionPolicy: {enabled: false}}`, "WARNING: No admission policy limits the rotator"},
		{`provider: {name: other}`, "`provider: other`"},
		{`fullnameOverride: other`, "rollout status daemonset/other-provider"},
		{`vault: {address: "http://vault:8200", insecureHTTP: true}`,
			"WARNING: Plain HTTP to Vault is accepted (vault.insecureHTTP)"},
		{`networkPolicy: {egress: {enabled: true}}`, "and to which ports the pods connect"},
		{`provider: {enabled: false}`, "get cronjob notes-secretmanager-rotator"},
		{`provider: {enabled: false}`, "(rotator, exporter)"},
		{`rotator: {enabled: false}`, "(provider)"},
		{`rotator: {enabled: false}`, "secretmanager doctor --provider-namespace notes\n"},
		{`fullnameOverride: other`, "--rotator-service-account notes/other-rotator"},
		{`rotator: {serviceAccount: {create: false, name: ours}}`, "--rotator-service-account notes/ours"},
		{`rotator: {cluster: true, vaultRole: x, retire: {enabled: true, onlyUser: true}}`, "--rotator-role x --retire"},
		{`rotator: {transitKeys: [a, "b-[0-9]"]}`,
			"--rotator-service-account notes/notes-secretmanager-rotator --rotator-patterns"},
		{`{vault: {authMount: k8s, audience: ""}, driver: {check: false}}`, `--audience "" --auth-mount k8s`},
	} {
		notes, err := c.Apply(t.Context(), "install", "notes", "notes", test.values, "--dry-run=server")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(notes, test.want) {
			t.Errorf("with %s the notes do not contain %q:\n%s", test.values, test.want, notes)
		}
	}
}
