package rotator_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// TestListContinuesAfter410 lets every continue token expire. The response has a token
// that continues at the same key with the current data.
func TestListContinuesAfter410(t *testing.T) {
	f := newServerFixture(t)
	for i := range 10 {
		f.CreateSecret(f.encrypt(f.Namespace, fmt.Sprintf("s%d", i), map[string]string{"e": "x"}))
	}
	f.RotateKey()
	expired := 0
	kube := f.Client(func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
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
	report, err := rotator.RunPaged(t.Context(), f.minimal(), kube,
		f.options(func(o *rotator.Options) { o.Namespaces = []string{f.Namespace} }), 3)
	if lists := 3; err != nil || expired < lists {
		t.Fatalf("%v, %d responses with 410 in %d lists", err, expired, lists)
	}
	if k := onlyKey(t, report); k.Rewrapped != 10 || k.Secrets != 10 {
		t.Errorf("rewrapped %d entries of %d Secrets, want 10 of 10", k.Rewrapped, k.Secrets)
	}
}

// inconsistent converts a continue token to the one of a response with 410, which has the
// same key and the newest revision.
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

// TestBatchFails has a Vault reject a whole batch for one item. The real Vault does not
// do that for items that the rotator sends.
func TestBatchFails(t *testing.T) {
	f := newServerFixture(t)
	bad := f.CreateSecret(f.encrypt(f.Namespace, "bad", map[string]string{"e": "x"})).Data["e"]
	f.CreateSecret(f.encrypt(f.Namespace, "good", map[string]string{"e": "x"}))
	f.CreateSecret(f.encrypt(f.Namespace, "fine", map[string]string{"e": "x"}))
	f.RotateKey()
	address := f.VaultProxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if strings.Contains(r.URL.Path, "/rewrap/") && bytes.Contains(body, bad) {
			http.Error(rw, `{"errors":["invalid item"]}`, http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		vault.ServeHTTP(rw, r)
	})
	report, err := rotator.Run(t.Context(), f.Session(address, f.Vault.RootToken), f.Kube, f.options())
	k := onlyKey(t, report)
	if !errors.Is(err, rotator.ErrIncomplete) || k.Rewrapped != 2 || k.Unresolved.Count != 1 ||
		k.Unresolved.Items[0].Name != "bad" ||
		!strings.Contains(k.Unresolved.Items[0].Reason, "invalid item") {
		t.Errorf("%v, %+v", err, k)
	}
}

// TestOutageEndsGroup has Vault fail every rewrap. The run sends one request per worker,
// not one per batch.
func TestOutageEndsGroup(t *testing.T) {
	f := newServerFixture(t)
	entries := map[string]string{}
	for i := range 60 {
		entries[fmt.Sprint("e", i)] = "x"
	}
	for i := range 8 {
		f.CreateSecret(f.encrypt(f.Namespace, fmt.Sprint("s", i), entries))
	}
	f.RotateKey()
	requests := 0
	address := f.VaultProxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
		if strings.Contains(r.URL.Path, "/rewrap/") {
			requests++
			http.Error(rw, `{"errors":["Vault is sealed"]}`, http.StatusServiceUnavailable)
			return
		}
		vault.ServeHTTP(rw, r)
	})
	report, err := rotator.Run(t.Context(), f.Session(address, f.Vault.RootToken), f.Kube,
		f.options(func(o *rotator.Options) { o.Concurrency = 1 }))
	k := onlyKey(t, report)
	if !errors.Is(err, rotator.ErrIncomplete) || requests != 1 || k.Unresolved.Count != 480 ||
		!strings.Contains(k.Error, "sealed") || !strings.Contains(k.Unresolved.Items[0].Reason, "sealed") {
		t.Errorf("%v, %d requests, %d unresolved, error %q", err, requests, k.Unresolved.Count, k.Error)
	}
}

// TestStop cancels a run: it returns the error and writes its summary, and the next run
// completes the work.
func TestStop(t *testing.T) {
	f := newFixture(t)
	plain := f.populate(5)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	kube := f.Client(fixture.BeforeEach(http.MethodPatch, func(n int) {
		if n == 4 {
			cancel()
		}
	}))
	report, err := rotator.Run(ctx, f.minimal(), kube,
		f.options(func(o *rotator.Options) { o.Rotate, o.Concurrency = rotator.Always, 1 }))
	if !errors.Is(err, context.Canceled) || report == nil {
		t.Fatalf("got %v, %v", report, err)
	}
	if k := onlyKey(t, report); k.Rewrapped == 0 || !k.Rotated || report.Result != rotator.ResultStopped {
		t.Errorf("report: %+v", k)
	}
	// The entries were not counted, so the summary has no count of 0.
	if s := f.summary(); s.Result != rotator.ResultStopped || !s.LastDone.IsZero() || len(s.Keys) != 1 ||
		!s.Keys[0].Rotated || s.Keys[0].Counted() {
		t.Errorf("summary: %+v", s)
	}
	report, err = rotator.Run(t.Context(), f.minimal(), f.Kube,
		f.options(func(o *rotator.Options) { o.Rotate = rotator.Auto }))
	if k := onlyKey(t, report); err != nil || k.Rotated || k.After != 2 || k.Rewrapped == 0 {
		t.Errorf("the next run: %v, %+v", err, k)
	}
	for id := range plain {
		ns, name, _ := strings.Cut(id, "/")
		for entry, text := range f.plain(ns, name) {
			if text != plain[id][entry] {
				t.Errorf("%s/%s has another value", id, entry)
			}
		}
	}
}

// TestSummaryConflict has another run write the ConfigMap at the same time. Both parts
// are in the ConfigMap afterwards.
func TestSummaryConflict(t *testing.T) {
	f := newFixture(t)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	raced := false
	kube := f.Client(func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPut && !raced {
				raced = true
				m := f.stateOf()
				m.Data = map[string]string{"transit__another": "e=7"}
				if _, err := f.Kube.CoreV1().ConfigMaps(f.Namespace).Update(t.Context(), m, metav1.UpdateOptions{}); err != nil {
					return nil, err
				}
			}
			return next.RoundTrip(r)
		})
	})
	if _, err := rotator.Run(t.Context(), f.minimal(), kube, f.options()); err != nil {
		t.Fatal(err)
	}
	if m := f.stateOf(); m.Data["transit__another"] == "" || m.Data["transit__"+f.Key] == "" {
		t.Errorf("%v", m.Data)
	}
}

// TestAdmissionRejectsWrite has an admission policy reject the write with the status of a
// conflict. The write is not repeated.
func TestAdmissionRejectsWrite(t *testing.T) {
	f := newServerFixture(t)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	f.RotateKey()
	policies := f.Kube.AdmissionregistrationV1()
	name, fail := metav1.ObjectMeta{Name: f.Namespace}, admissionv1.Fail
	match := &admissionv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": f.Namespace}},
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
			Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: f.Namespace,
				ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}}}, metav1.CreateOptions{})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	f.wait(func() bool { // until the policy is in force
		_, err := f.Kube.CoreV1().Secrets(f.Namespace).Update(t.Context(), f.GetSecret(f.Namespace, "s"),
			metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), "nobody changes Secrets here")
	})
	requests := 0
	kube := f.Client(fixture.BeforeEach(http.MethodPatch, func(int) { requests++ }))
	report, err := rotator.Run(t.Context(), f.minimal(), kube, f.options())
	k := onlyKey(t, report)
	if !errors.Is(err, rotator.ErrIncomplete) || requests != 1 || k.Unresolved.Count != 1 ||
		!strings.Contains(k.Unresolved.Items[0].Reason, "nobody changes Secrets here: check what admits Secrets") {
		t.Errorf("%v, %d requests, unresolved: %v", err, requests, k.Unresolved.Items)
	}
}
