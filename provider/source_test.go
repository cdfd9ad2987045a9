package provider

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// create makes an object in the API server, as its administrator.
func create(t testing.TB, s *testenv.APIServer, path string, object any) {
	t.Helper()
	client, err := rest.HTTPClientFor(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Post(s.Address+path, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("POST %s: %s: %s", path, resp.Status, text)
	}
}

// allowGet lets service account app get the Secrets of these names.
func allowGet(t testing.TB, s *testenv.APIServer, namespace string, names ...string) {
	t.Helper()
	path := "/apis/rbac.authorization.k8s.io/v1/namespaces/" + namespace
	create(t, s, path+"/roles", rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: names,
			Verbs: []string{"get"}}},
	})
	create(t, s, path+"/rolebindings", rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: "app"}},
	})
}

// withAPIServer is a provider outside of a cluster.
func withAPIServer(t testing.TB, kubeconfig string) func(*Config) {
	t.Helper()
	config, err := FromKubeconfig(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewSecretReader(config)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.SecretReader = k }
}

// TestMountAsPod reads the Secret from a real API server with a real token, and
// logs in at a kubernetes auth mount that has it reviewed there.
func TestMountAsPod(t *testing.T) {
	kube := testenv.SharedAPIServer(t)
	e := newEnv(t)
	kube.CreateServiceAccount(t, e.namespace, "app")
	kube.CreateServiceAccount(t, e.namespace, "other")
	if err := e.vault.TrustAPIServer(t.Context(), "kubernetes", kube, kube.ReviewerToken(t)); err != nil {
		t.Fatal(err)
	}
	err := e.vault.AllowLogin(t.Context(),
		testenv.Role{Name: e.namespace, Namespace: e.namespace, ServiceAccount: "app", Policies: []string{e.policy}})
	if err != nil {
		t.Fatal(err)
	}
	create(t, kube, "/api/v1/namespaces/"+e.namespace+"/secrets", corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "matrix"}, Type: ciphertext.Type,
		Data: map[string][]byte{"token": []byte(e.encrypt(t, ciphertext.Strict, "matrix", "token", canaryPlaintext))},
	})
	allowGet(t, kube, e.namespace, "matrix", "absent")
	podOf := func(account string) []string {
		api, uid := kube.PodToken(t, e.namespace, account+"-0", account, "", time.Hour)
		vault, _ := kube.PodToken(t, e.namespace, account+"-0", account, "vault", time.Hour)
		return []string{class.AttributePodName, account + "-0", class.AttributePodUID, uid, class.AttributeAccount, account,
			class.AttributeTokens, tokensJSON(map[string]token{"": {api, tokenExpiry}, "vault": {vault, tokenExpiry}})}
	}
	params := e.params(append(podOf("app"), "vaultAuthMountPath", "")...)
	s := serve(t, e.vault.Address, withAPIServer(t, kube.Kubeconfig))

	resp, err := s.Mount(t.Context(), mountRequest(params, nil))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]file{"token": {0o644, canaryPlaintext}}, filesOf(resp)); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(s.log.String(), "ciphertext=api-server source=vault") {
		t.Errorf("the log does not say where the ciphertext came from:\n%s", s.log)
	}

	t.Run("tokens in secrets", func(t *testing.T) {
		without := merged(params)
		delete(without, class.AttributeTokens)
		if _, err := s.Mount(t.Context(),
			mountRequest(without, map[string]string{class.AttributeTokens: params[class.AttributeTokens]})); err != nil {
			t.Error(err)
		}
	})
	t.Run("no such Secret", func(t *testing.T) {
		_, err := s.Mount(t.Context(), mountRequest(merged(params, "secretName", "absent"), nil))
		wantError(t, err, failure.SecretNotFound, "Secret "+e.namespace+"/absent", `secrets "absent" not found`, "secretName")
	})
	t.Run("not allowed", func(t *testing.T) {
		_, err := s.Mount(t.Context(), mountRequest(merged(params, "secretName", "forbidden"), nil))
		wantError(t, err, failure.SecretForbidden, e.namespace+"/app", `cannot get resource "secrets"`,
			"`nodePublishSecretRef: {name: forbidden}`", "the owner of the namespace gives the account a Role")
		// The class alone asks for the Secret: what would grant it is not there to copy.
		if strings.Contains(err.Error(), "kubectl") || strings.Contains(err.Error(), "--resource-name") {
			t.Errorf("it prints a command: %v", err)
		}
	})
	t.Run("refused token", func(t *testing.T) {
		// The provider has the kubeconfig of an administrator, and must not act as one.
		podForgery := issuer().PodToken(e.namespace, "app-0", params[class.AttributePodUID], "app", "", time.Hour)
		_, err := s.Mount(t.Context(),
			mountRequest(merged(params, class.AttributeTokens,
				tokensJSON(map[string]token{"": {podForgery, time.Time{}}, "vault": {podForgery, time.Time{}}})), nil))
		wantError(t, err, failure.APIServerTokenRejected, "Unauthorized", "- audience: ''")
	})
	t.Run("wrong service account at Vault", func(t *testing.T) {
		other := merged(params, podOf("other")...)
		_, err := s.Mount(t.Context(),
			mountRequest(other, map[string]string{"token": e.encrypt(t, ciphertext.Strict, "matrix", "token", "x")}))
		wantError(t, err, failure.LoginDenied, `role "`+e.namespace+`"`, e.namespace+"/other", "auth/kubernetes",
			`audience "vault"`, "HTTP 403")
	})
	clean(t, append([]string{params[class.AttributeTokens]}, canaries...), s.log.String())
}

// TestAPIServerFaults has what a real API server does not do on demand.
func TestAPIServerFaults(t *testing.T) {
	e := newEnv(t)
	var busy, long, soon atomic.Int32
	secret := toJSON(corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: "matrix", Namespace: e.namespace},
		Data:       map[string][]byte{"x": []byte(e.encrypt(t, ciphertext.Strict, "matrix", "x", "value"))},
	})
	apiToken := issuer().PodToken(e.namespace, "app-0", "uid-0", "app", "", time.Hour)
	params := e.params(class.AttributeTokens,
		tokensJSON(map[string]token{"": {apiToken, time.Time{}}, "vault": {e.jwt, time.Time{}}}))
	answer := func(w http.ResponseWriter, status int, text string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	}
	tests := []struct {
		name   string
		serve  func(w http.ResponseWriter, r *http.Request)
		reason *failure.Reason
		texts  []string
	}{
		{"held", func(_ http.ResponseWriter, r *http.Request) { hold(r) }, failure.MountTimeout,
			[]string{"not finished within 1s", "reading Secret " + e.namespace + "/matrix"}},
		{"500 for ever", func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 500, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"etcd is away","code":500}`)
		}, failure.APIServerUnavailable, []string{"etcd is away", "nodePublishSecretRef"}},
		{"HTML", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>"+canaryPlaintext) },
			failure.APIServerUnavailable, []string{"reading Secret"}},
		{"no data", func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 200, `{"kind":"Secret","apiVersion":"v1"}`)
		}, failure.SecretEmpty, []string{"it has no entries"}},
		{"null", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, `null`) }, failure.SecretEmpty,
			[]string{"it has no entries"}},
		{"another kind", func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 200, `{"kind":"Pod","apiVersion":"v1"}`)
		}, failure.APIServerUnavailable, []string{"reading Secret"}},
		{"asks for patience", func(w http.ResponseWriter, _ *http.Request) {
			soon.Add(1)
			answer(w, 429,
				`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"busy","code":429,`+
					`"details":{"retryAfterSeconds":3600}}`)
		}, failure.APIServerUnavailable, []string{"busy"}},
		{"too long", func(w http.ResponseWriter, _ *http.Request) {
			long.Add(1)
			fmt.Fprint(w, `{"kind":"Secret","apiVersion":"v1","data":{"x":"`)
			for range maxSecretResponse >> 20 {
				fmt.Fprint(w, strings.Repeat("A", 1<<20))
			}
			fmt.Fprint(w, `"}}`)
		}, failure.APIServerUnavailable, []string{"longer than 4 MiB"}},
		{"busy, then not", func(w http.ResponseWriter, r *http.Request) {
			if busy.Add(1) == 1 {
				answer(w, 429, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"busy","code":429}`)
				return
			}
			if r.Header.Get("Authorization") != "Bearer "+apiToken {
				t.Errorf("a request without the pod's token")
			}
			answer(w, 200, secret)
		}, nil, nil},
	}
	t.Cleanup(func() {
		if busy.Load() != 2 || long.Load() != 1 || soon.Load() != 1 {
			t.Errorf("tries: %d when busy, %d when too long, %d when asked for patience", busy.Load(), long.Load(), soon.Load())
		}
	})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			api := httptest.NewServer(http.HandlerFunc(test.serve))
			t.Cleanup(api.Close)
			k, err := NewSecretReader(&rest.Config{Host: api.URL})
			if err != nil {
				t.Fatal(err)
			}
			s := serve(t, e.vault.Address, within(time.Second), func(c *Config) { c.SecretReader = k })
			_, err = s.Mount(t.Context(), mountRequest(params, nil))
			if test.reason == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, test.reason, test.texts...)
			clean(t, append([]string{e.jwt, apiToken}, canaries...), err.Error(), s.log.String())
		})
	}

	t.Run("not there", func(t *testing.T) {
		k, err := NewSecretReader(&rest.Config{Host: "http://" + deadAddress(t)})
		if err != nil {
			t.Fatal(err)
		}
		s := serve(t, e.vault.Address, within(time.Second), func(c *Config) { c.SecretReader = k })
		_, err = s.Mount(t.Context(), mountRequest(params, nil))
		wantError(t, err, failure.APIServerUnavailable, "connection refused", "can be reached")
	})
	t.Run("expired token", func(t *testing.T) {
		k, err := NewSecretReader(&rest.Config{Host: "http://" + deadAddress(t)})
		if err != nil {
			t.Fatal(err)
		}
		s := serve(t, e.vault.Address, func(c *Config) { c.SecretReader = k })
		expired := merged(params, class.AttributeTokens,
			tokensJSON(map[string]token{"": {apiToken, time.Now().Add(-time.Second)}, "vault": {e.jwt, time.Time{}}}))
		_, err = s.Mount(t.Context(), mountRequest(expired, nil))
		wantError(t, err, failure.TokenExpired, `audience "" expired`, "as the pod")
	})
}

// TestInCluster checks what is made of the environment of a pod.
func TestInCluster(t *testing.T) {
	env := map[string]string{"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
	config := InCluster(func(name string) string { return env[name] })
	if config == nil || config.Host != "https://[fd00::1]:443" || config.CAFile != inClusterCA {
		t.Errorf("got %v", config)
	}
	if config.BearerToken != "" || config.BearerTokenFile != "" {
		t.Error("it has an identity")
	}
	if InCluster(func(string) string { return "" }) != nil {
		t.Error("a cluster without an environment")
	}
	if _, err := NewSecretReader(&rest.Config{Host: "https://x",
		TLSClientConfig: rest.TLSClientConfig{CAFile: "/nowhere/ca.crt"}}); err == nil {
		t.Error("no error without the CA's file")
	}
}

// TestReaderHasNoCredentials checks that what a configuration has of them is dropped.
func TestReaderHasNoCredentials(t *testing.T) {
	got := make(chan string, 1)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("Authorization") + r.Header.Get("Impersonate-User")
		w.WriteHeader(http.StatusForbidden)
	}))
	defer api.Close()
	k, err := NewSecretReader(&rest.Config{Host: api.URL, BearerToken: "mine",
		Impersonate: rest.ImpersonationConfig{UserName: "admin"}})
	if err != nil {
		t.Fatal(err)
	}
	k.read(t.Context(), "demo", "matrix", "the-pods", func() error { return nil }, func(int, time.Duration) {})
	if diff := cmp.Diff("Bearer the-pods", <-got); diff != "" {
		t.Error(diff)
	}
}
