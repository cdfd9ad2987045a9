package rotator_test

import (
	"cmp"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// as returns a clientset of a service account with the rules of each namespace. Those of
// "" apply to the whole cluster.
func (f *testFixture) as(rules map[string][]rbacv1.PolicyRule) kubernetes.Interface {
	f.T.Helper()
	ctx := f.T.Context()
	const account = "tester"
	f.API.CreateServiceAccount(f.T, f.Namespace, account)
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: f.Namespace, Name: account}}
	name := metav1.ObjectMeta{Name: f.Namespace}
	rbac := f.Kube.RbacV1()
	var errs []error
	for ns, rules := range rules {
		var err1, err2 error
		if ns == "" {
			_, err1 = rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: name, Rules: rules},
				metav1.CreateOptions{})
			_, err2 = rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: name, Subjects: subjects,
				RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name.Name}}, metav1.CreateOptions{})
		} else {
			_, err1 = rbac.Roles(ns).Create(ctx, &rbacv1.Role{ObjectMeta: name, Rules: rules}, metav1.CreateOptions{})
			_, err2 = rbac.RoleBindings(ns).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: name, Subjects: subjects,
				RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name.Name}}, metav1.CreateOptions{})
		}
		errs = append(errs, err1, err2)
	}
	if err := errors.Join(errs...); err != nil {
		f.T.Fatal(err)
	}
	config := rest.AnonymousClientConfig(f.API.Config)
	config.BearerToken = f.API.ServiceAccountToken(f.T, f.Namespace, account, "", 10*time.Minute)
	config.QPS = -1
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		f.T.Fatal(err)
	}
	// The API server needs a moment to see new roles.
	f.wait(func() bool {
		_, err := kube.CoreV1().ConfigMaps(f.Namespace).Get(ctx, "x", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	return kube
}

func (f *testFixture) wait(condition func() bool) {
	f.T.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.T.Fatal("the condition was not met within 30 s")
		}
	}
}

var (
	onSecrets = rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"},
		Verbs: []string{"get", "list", "patch"}}
	readOnly = rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "list"}}
	onState  = rbacv1.PolicyRule{APIGroups: []string{"", "coordination.k8s.io"},
		Resources: []string{"configmaps", "leases", "events"}, Verbs: []string{"get", "create", "update"}}
)

func TestPermissions(t *testing.T) {
	type rules = map[string][]rbacv1.PolicyRule
	tests := map[string]struct {
		rules   func(ns, other string) rules
		change  func(o *rotator.Options, ns, other string)
		err     string // part of the error; empty for none
		problem string // part of the first problem
		retire  string
		done    int // entries rewrapped, of two
	}{
		"whole cluster": {
			rules:  func(ns, other string) rules { return rules{"": {onSecrets}, ns: {onState}} },
			retire: "no entry below version 2", done: 2,
		},
		"namespace by namespace": {
			rules:  func(ns, other string) rules { return rules{other: {onSecrets}, ns: {onSecrets, onState}} },
			change: func(o *rotator.Options, ns, other string) { o.Namespaces = []string{ns, other} },
			retire: "the run excludes Secrets of the key", done: 2,
		},
		"one namespace cannot be listed": {
			rules:  func(ns, other string) rules { return rules{ns: {onSecrets, onState}} },
			change: func(o *rotator.Options, ns, other string) { o.Namespaces = []string{ns, other} },
			err:    "1 unresolved", problem: "check that this identity may list Secrets there",
			retire: "not everything can be listed", done: 1,
		},
		"no permission to list the cluster": {
			rules: func(ns, other string) rules { return rules{ns: {onSecrets, onState}} },
			err:   "or name the namespaces to list",
		},
		"no patch": {
			rules: func(ns, other string) rules { return rules{"": {readOnly}, ns: {onState}} },
			err:   "2 unresolved", problem: "check that this identity may patch it",
			retire: "2 texts of versions below 2 still decrypt",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newServerFixture(t)
			other := f.Namespace + "-other"
			f.CreateNamespace(other)
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			f.CreateSecret(f.encrypt(other, "s", map[string]string{"e": "x"}))
			f.RotateKey()
			opts := f.options(retiring(0))
			if test.change != nil {
				test.change(&opts, f.Namespace, other)
			}
			report, err := rotator.Run(t.Context(), f.retirer(), f.as(test.rules(f.Namespace, other)), opts)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error: %v, want %q", err, test.err)
			}
			if report == nil {
				if test.retire != "" {
					t.Error("no report")
				}
				return
			}
			k := onlyKey(t, report)
			if k.Rewrapped != test.done {
				t.Errorf("%d rewrapped, want %d", k.Rewrapped, test.done)
			}
			problems := append(report.Unassigned.Items, k.Unresolved.Items...)
			if (len(problems) > 0) != (test.problem != "") ||
				len(problems) > 0 && !strings.Contains(problems[0].String(), test.problem) {
				t.Errorf("problems %v, want %q", problems, test.problem)
			}
			if !strings.Contains(k.Retire.Reason, test.retire) {
				t.Errorf("retire %+v, want %q", k.Retire, test.retire)
			}
		})
	}
}

// TestRecountCannotList denies the listing of the recount.
func TestRecountCannotList(t *testing.T) {
	f := newServerFixture(t)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	f.RotateKey()
	lists := 0
	kube := f.Client(func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodGet && r.URL.Query().Get("labelSelector") != "" {
				if lists++; lists == 3 {
					return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
				}
			}
			return next.RoundTrip(r)
		})
	})
	report, err := rotator.Run(t.Context(), f.retirer(), kube, f.options(retiring(0), func(o *rotator.Options) {
		o.Keys, o.Namespaces = []string{f.Key + "=" + f.Namespace}, []string{f.Namespace}
	}))
	if !errors.Is(err, rotator.ErrIncomplete) || report.Unassigned.Count != 1 {
		t.Errorf("%v, unresolved: %v", err, report.Unassigned.Items)
	}
	if r := onlyKey(t, report).Retire; r.Done || !strings.Contains(r.Reason, "not everything can be listed") {
		t.Errorf("retire: %+v", r)
	}
}

// TestNotInstalled verifies that a run without ConfigMap or Lease creates and changes
// nothing, and that the error names the manifests that have them.
func TestNotInstalled(t *testing.T) {
	for name, test := range map[string]struct {
		namespace string // empty: the fixture's
		remove    func(f *testFixture) error
		want      string
	}{
		"no namespace": {"nowhere", nil, "taking Lease nowhere/secretmanager-rotation"},
		"no Lease": {"", func(f *testFixture) error {
			return f.Kube.CoordinationV1().Leases(f.Namespace).Delete(f.T.Context(), rotator.StateName, metav1.DeleteOptions{})
		}, "taking Lease"},
		"no ConfigMap": {"", func(f *testFixture) error {
			return f.Kube.CoreV1().ConfigMaps(f.Namespace).Delete(f.T.Context(), rotator.StateName, metav1.DeleteOptions{})
		}, "reading the state in ConfigMap"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newServerFixture(t)
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			if test.remove != nil {
				if err := test.remove(f); err != nil {
					t.Fatal(err)
				}
			}
			created := 0
			kube := f.Client(func(next http.RoundTripper) http.RoundTripper {
				return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
					if r.Method == http.MethodPost {
						created++
					}
					return next.RoundTrip(r)
				})
			})
			_, err := rotator.Run(t.Context(), f.minimal(), kube, f.options(func(o *rotator.Options) {
				o.Rotate, o.StateNamespace = rotator.Always, cmp.Or(test.namespace, f.Namespace)
			}))
			if !errors.Is(err, rotator.ErrNotInstalled) || !strings.Contains(err.Error(), test.want) ||
				!strings.Contains(err.Error(), "the chart or manifests/rotator") {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if f.KeyInfo().Latest != 1 {
				t.Error("the key was rotated")
			}
			if created != 0 {
				t.Errorf("%d objects were created", created)
			}
		})
	}
}
