package rotator_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/rotator"
)

// as returns a clientset of a service account that has the rules in the given
// namespaces; in "" across the cluster.
func (w *world) as(rules map[string][]rbacv1.PolicyRule) kubernetes.Interface {
	w.t.Helper()
	ctx := w.t.Context()
	const account = "tester"
	w.api.CreateServiceAccount(w.t, w.ns, account)
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: w.ns, Name: account}}
	name := metav1.ObjectMeta{Name: w.ns}
	rbac := w.kube.RbacV1()
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
		w.t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(w.api.Config)
	config.BearerToken = w.api.ServiceAccountToken(w.t, w.ns, account, "", 10*time.Minute)
	config.QPS = -1
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		w.t.Fatal(err)
	}
	// The API server takes a moment to learn of new roles.
	w.wait(func() bool {
		_, err := kube.CoreV1().ConfigMaps(w.ns).Get(ctx, "x", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	return kube
}

func (w *world) wait(condition func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatal("it did not come about in 30 s")
		}
	}
}

var (
	onSecrets = rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"},
		Verbs: []string{"get", "list", "patch"}}
	readOnly = rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "list"}}
	onState  = rbacv1.PolicyRule{APIGroups: []string{"", "coordination.k8s.io"},
		Resources: []string{"configmaps", "leases"}, Verbs: []string{"get", "create", "update"}}
)

func TestRightsInKubernetes(t *testing.T) {
	type rules = map[string][]rbacv1.PolicyRule
	tests := map[string]struct {
		rules  func(ns, other string) rules
		change func(o *rotator.Options, ns, other string)
		err    string // part of the error; empty for none
		left   string // part of the first that is left
		retire string
		done   int // entries rewrapped, of two
	}{
		"whole cluster": {
			rules:  func(ns, other string) rules { return rules{"": {onSecrets}, ns: {onState}} },
			retire: "no entry below version 2", done: 2,
		},
		"namespace by namespace": {
			rules:  func(ns, other string) rules { return rules{other: {onSecrets}, ns: {onSecrets, onState}} },
			change: func(o *rotator.Options, ns, other string) { o.Namespaces = []string{ns, other} },
			retire: "not everything can be seen: (all namespaces)", done: 2,
		},
		"one namespace cannot be listed": {
			rules:  func(ns, other string) rules { return rules{ns: {onSecrets, onState}} },
			change: func(o *rotator.Options, ns, other string) { o.Namespaces = []string{ns, other} },
			err:    "1 left", left: "check that this identity may list Secrets there",
			retire: "not everything can be seen", done: 1,
		},
		"cluster asked for, not granted": {
			rules: func(ns, other string) rules { return rules{ns: {onSecrets, onState}} },
			err:   "or name the namespaces that take part",
		},
		"no patch": {
			rules: func(ns, other string) rules { return rules{"": {readOnly}, ns: {onState}} },
			err:   "2 left", left: "check that this identity may patch it", retire: "2 entries are left",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			other := w.ns + "-other"
			w.namespace(other)
			w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
			w.store(w.seal(other, "s", map[string]string{"e": "x"}))
			w.rotateKey()
			opts := w.options(retiring(0))
			if test.change != nil {
				test.change(&opts, w.ns, other)
			}
			report, err := rotator.Run(t.Context(), w.retirer(), w.as(test.rules(w.ns, other)), opts)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error: %v, want %q", err, test.err)
			}
			if report == nil {
				if test.retire != "" {
					t.Error("no report")
				}
				return
			}
			k := only(t, report)
			if k.Rewrapped != test.done {
				t.Errorf("%d rewrapped, want %d", k.Rewrapped, test.done)
			}
			left := append(report.Left, k.Left...)
			if (len(left) > 0) != (test.left != "") || len(left) > 0 && !strings.Contains(left[0].String(), test.left) {
				t.Errorf("left %v, want %q", left, test.left)
			}
			if !strings.Contains(k.Retire.Reason, test.retire) {
				t.Errorf("retire %+v, want %q", k.Retire, test.retire)
			}
		})
	}
}

// TestVerifyCannotList takes the right to list away between rewrap and verify.
func TestVerifyCannotList(t *testing.T) {
	w := newWorld(t)
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	w.rotateKey()
	lists := 0
	kube := w.client(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Query().Get("labelSelector"), w.key) {
				if lists++; lists == 3 {
					return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
				}
			}
			return next.RoundTrip(r)
		})
	})
	report, err := rotator.Run(t.Context(), w.retirer(), kube, w.options(retiring(0)))
	if !errors.Is(err, rotator.ErrIncomplete) || report.LeftCount != 1 {
		t.Errorf("%v, left %v", err, report.Left)
	}
	if r := only(t, report).Retire; r.Done || !strings.Contains(r.Reason, "not everything can be seen") {
		t.Errorf("retire: %+v", r)
	}
}

// An entry that is below the newest version may be where nobody can look.
func TestNoRotationWithoutSeeingEverything(t *testing.T) {
	w := newWorld(t)
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	kube := w.as(map[string][]rbacv1.PolicyRule{w.ns: {onSecrets, onState}})
	report, err := rotator.Run(t.Context(), w.minimal(), kube, w.options(at(48*time.Hour), func(o *rotator.Options) {
		o.Rotate, o.Namespaces = rotator.Auto, []string{w.ns, "hidden"}
	}))
	if k := only(t, report); !errors.Is(err, rotator.ErrIncomplete) || k.Rotated ||
		!strings.Contains(k.RotateReason, "not all namespaces could be listed") {
		t.Errorf("%v, %+v", err, k)
	}
}

// TestNotInstalled: a run creates neither ConfigMap nor Lease. It changes nothing and
// names what has them.
func TestNotInstalled(t *testing.T) {
	for name, test := range map[string]struct {
		namespace string // empty: the world's
		remove    func(w *world) error
		dry       bool
		want      string
	}{
		"no namespace":          {"nowhere", nil, false, "taking Lease nowhere/secretmanager-rotation"},
		"no namespace, dry run": {"nowhere", nil, true, "reading the state in ConfigMap nowhere/secretmanager-rotation"},
		"no Lease": {"", func(w *world) error {
			return w.kube.CoordinationV1().Leases(w.ns).Delete(w.t.Context(), rotator.StateName, metav1.DeleteOptions{})
		}, false, "taking Lease"},
		"no ConfigMap": {"", func(w *world) error {
			return w.kube.CoreV1().ConfigMaps(w.ns).Delete(w.t.Context(), rotator.StateName, metav1.DeleteOptions{})
		}, false, "reading the state in ConfigMap"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
			if test.remove != nil {
				if err := test.remove(w); err != nil {
					t.Fatal(err)
				}
			}
			created := 0
			kube := w.client(func(next http.RoundTripper) http.RoundTripper {
				return roundTrip(func(r *http.Request) (*http.Response, error) {
					if r.Method == http.MethodPost {
						created++
					}
					return next.RoundTrip(r)
				})
			})
			_, err := rotator.Run(t.Context(), w.minimal(), kube, w.options(func(o *rotator.Options) {
				o.Rotate, o.StateNamespace, o.DryRun = rotator.Always, cmp.Or(test.namespace, w.ns), test.dry
			}))
			if !errors.Is(err, rotator.ErrNotInstalled) || !strings.Contains(err.Error(), test.want) ||
				!strings.Contains(err.Error(), "the chart or manifests/rotator") {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if w.keyInfo().Latest != 1 {
				t.Error("it rotated the key first")
			}
			if created != 0 {
				t.Errorf("it created %d objects", created)
			}
		})
	}
}

// TestListGoesOnAfter410 lets the API server say of every list that it began that
// it is too old by now. The token it gives then is for a list of now, from the
// same place.
func TestListGoesOnAfter410(t *testing.T) {
	w := newWorld(t)
	for i := range 10 {
		w.store(w.seal(w.ns, fmt.Sprintf("s%d", i), map[string]string{"e": "x"}))
	}
	w.rotateKey()
	expired := 0
	kube := w.client(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			token := r.URL.Query().Get("continue")
			if r.Method != http.MethodGet || token == "" || token == inconsistent(t, token) {
				return next.RoundTrip(r)
			}
			expired++
			status := apierrors.NewResourceExpired("The provided continue parameter is too old")
			status.ErrStatus.Continue = inconsistent(t, token)
			status.ErrStatus.APIVersion, status.ErrStatus.Kind = "v1", "Status"
			text, err := json.Marshal(status.ErrStatus)
			return &http.Response{StatusCode: http.StatusGone, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(bytes.NewReader(text)), Request: r}, err
		})
	})
	report, err := rotator.RunPaged(t.Context(), w.minimal(), kube,
		w.options(func(o *rotator.Options) { o.Namespaces = []string{w.ns} }), 3)
	if lists := 3; err != nil || expired < lists {
		t.Fatalf("%v, %d answers of 410 in %d lists", err, expired, lists)
	}
	if k := only(t, report); k.Rewrapped != 10 || k.Secrets != 10 {
		t.Errorf("rewrapped %d entries of %d Secrets, want 10 of 10", k.Rewrapped, k.Secrets)
	}
}

// inconsistent makes of a continue token the one that comes with a 410: from the
// same place, at whatever revision is newest.
func inconsistent(t *testing.T, token string) string {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	var content map[string]any
	if err := json.Unmarshal(text, &content); err != nil {
		t.Fatal(err)
	}
	content["rv"] = -1
	if text, err = json.Marshal(content); err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// TestBatchThatFailsAsAWhole stands for a Vault that refuses a batch for one
// item, which the real one does not do for anything that gets so far.
func TestBatchThatFailsAsAWhole(t *testing.T) {
	w := newWorld(t)
	poison := w.store(w.seal(w.ns, "bad", map[string]string{"e": "x"})).Data["e"]
	w.store(w.seal(w.ns, "good", map[string]string{"e": "x"}))
	w.store(w.seal(w.ns, "well", map[string]string{"e": "x"}))
	w.rotateKey()
	address := w.proxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if strings.Contains(r.URL.Path, "/rewrap/") && bytes.Contains(body, poison) {
			http.Error(rw, `{"errors":["cannot stand it"]}`, http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		vault.ServeHTTP(rw, r)
	})
	report, err := rotator.Run(t.Context(), w.session(address, w.vault.RootToken), w.kube, w.options())
	k := only(t, report)
	if !errors.Is(err, rotator.ErrIncomplete) || k.Rewrapped != 2 || k.LeftCount != 1 || k.Left[0].Name != "bad" ||
		!strings.Contains(k.Left[0].Reason, "cannot stand it") {
		t.Errorf("%v, %+v", err, k)
	}
}

// TestOutageIsNotTriedForEverySecret has Vault answer nothing but errors to
// rewrap: it is asked once per worker, not once per batch.
func TestOutageIsNotTriedForEverySecret(t *testing.T) {
	w := newWorld(t)
	entries := map[string]string{}
	for i := range 60 {
		entries[fmt.Sprint("e", i)] = "x"
	}
	for i := range 8 {
		w.store(w.seal(w.ns, fmt.Sprint("s", i), entries))
	}
	w.rotateKey()
	asked := 0
	address := w.proxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
		if strings.Contains(r.URL.Path, "/rewrap/") {
			asked++
			http.Error(rw, `{"errors":["Vault is sealed"]}`, http.StatusServiceUnavailable)
			return
		}
		vault.ServeHTTP(rw, r)
	})
	report, err := rotator.Run(t.Context(), w.session(address, w.vault.RootToken), w.kube,
		w.options(func(o *rotator.Options) { o.Concurrency = 1 }))
	k := only(t, report)
	if !errors.Is(err, rotator.ErrIncomplete) || asked != 1 || k.LeftCount != 480 ||
		!strings.Contains(k.Error, "sealed") || !strings.Contains(k.Left[0].Reason, "sealed") {
		t.Errorf("%v, asked %d times, left %d, error %q", err, asked, k.LeftCount, k.Error)
	}
}

// TestStop cancels a run in the middle: it ends at once, says so, leaves its
// summary, and the next run does the rest.
func TestStop(t *testing.T) {
	w := newWorld(t)
	plain := w.populate(5)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	kube := w.client(beforePatch(func(n int) {
		if n == 4 {
			cancel()
		}
	}))
	report, err := rotator.Run(ctx, w.minimal(), kube,
		w.options(func(o *rotator.Options) { o.Rotate, o.Concurrency = rotator.Always, 1 }))
	if !errors.Is(err, context.Canceled) || report == nil {
		t.Fatalf("got %v, %v", report, err)
	}
	if k := only(t, report); k.Rewrapped == 0 || !k.Rotated || report.Result != rotator.ResultStopped {
		t.Errorf("report of what was done: %+v", k)
	}
	m, err := w.kube.CoreV1().ConfigMaps(w.ns).Get(t.Context(), rotator.StateName, metav1.GetOptions{})
	if err != nil || !strings.Contains(m.Data["transit__"+w.key], `"rotated": true`) {
		t.Errorf("no summary: %v, %v", err, m.Data)
	}
	// It was not counted what there is, so nothing says that there is nothing.
	if s, err := rotator.ReadSummary(m); err != nil || s.Result != rotator.ResultStopped || !s.LastDone.IsZero() ||
		len(s.Keys) != 1 || s.Keys[0].Verified() {
		t.Errorf("the summary is %v, %+v", err, s)
	}
	report, err = rotator.Run(t.Context(), w.minimal(), w.kube,
		w.options(func(o *rotator.Options) { o.Rotate = rotator.Auto }))
	if k := only(t, report); err != nil || k.Rotated || k.After != 2 || k.Rewrapped == 0 {
		t.Errorf("the next run: %v, %+v", err, k)
	}
	for id := range plain {
		ns, name, _ := strings.Cut(id, "/")
		for entry, text := range w.plain(ns, name) {
			if text != plain[id][entry] {
				t.Errorf("%s/%s holds something else", id, entry)
			}
		}
	}
}

// TestSummaryIsNotLostToAnother has another run write the ConfigMap at the same
// time: what it says of its key stays.
func TestSummaryIsNotLostToAnother(t *testing.T) {
	w := newWorld(t)
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	raced := false
	kube := w.client(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPut && !raced {
				raced = true
				m, err := w.kube.CoreV1().ConfigMaps(w.ns).Get(t.Context(), rotator.StateName, metav1.GetOptions{})
				if err != nil {
					return nil, err
				}
				m.Data = map[string]string{"transit__another": "{}"}
				if _, err := w.kube.CoreV1().ConfigMaps(w.ns).Update(t.Context(), m, metav1.UpdateOptions{}); err != nil {
					return nil, err
				}
			}
			return next.RoundTrip(r)
		})
	})
	if _, err := rotator.Run(t.Context(), w.minimal(), kube, w.options()); err != nil {
		t.Fatal(err)
	}
	m, err := w.kube.CoreV1().ConfigMaps(w.ns).Get(t.Context(), rotator.StateName, metav1.GetOptions{})
	if err != nil || m.Data["transit__another"] == "" || m.Data["transit__"+w.key] == "" {
		t.Errorf("%v, %v", err, m.Data)
	}
}

// TestRefusedByAdmission has an admission policy refuse the write, with the same
// status as a conflict: it is not one, and is not tried again.
func TestRefusedByAdmission(t *testing.T) {
	w := newWorld(t)
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	w.rotateKey()
	policies := w.kube.AdmissionregistrationV1()
	name, fail := metav1.ObjectMeta{Name: w.ns}, admissionv1.Fail
	match := &admissionv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": w.ns}},
		ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Update},
			Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
		}}},
	}
	_, err1 := policies.ValidatingAdmissionPolicies().
		Create(t.Context(), &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: name,
			Spec: admissionv1.ValidatingAdmissionPolicySpec{FailurePolicy: &fail, MatchConstraints: match,
				Validations: []admissionv1.Validation{{Expression: "false", Message: "nobody changes Secrets here"}}}},
			metav1.CreateOptions{})
	_, err2 := policies.ValidatingAdmissionPolicyBindings().
		Create(t.Context(), &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: name,
			Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: w.ns,
				ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}}}, metav1.CreateOptions{})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	w.wait(func() bool { // until the API server knows
		_, err := w.kube.CoreV1().Secrets(w.ns).Update(t.Context(), w.get(w.ns, "s"),
			metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), "nobody changes Secrets here")
	})
	asked := 0
	kube := w.client(beforePatch(func(int) { asked++ }))
	report, err := rotator.Run(t.Context(), w.minimal(), kube, w.options())
	k := only(t, report)
	if !errors.Is(err, rotator.ErrIncomplete) || asked != 1 || k.LeftCount != 1 ||
		!strings.Contains(k.Left[0].Reason, "nobody changes Secrets here: check what admits Secrets") {
		t.Errorf("%v, asked %d times, left %v", err, asked, k.Left)
	}
}
