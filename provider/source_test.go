package provider

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// readWith configures a provider outside of a cluster.
func readWith(t testing.TB, kubeconfig string) func(*Config) {
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

// TestMountAsPod reads the Secret from a real API server with a real token, and logs in
// at a kubernetes auth mount that has the API server review the token.
func TestMountAsPod(t *testing.T) {
	e := newEnv(t)
	kube := e.withAPIServer()
	kube.API.CreateServiceAccount(t, e.namespace, "other")
	kube.TrustAPIServer()
	e.allowLogin(testenv.Role{})
	kube.CreateSecret(e.ciphertextSecret("token", canaryPlaintext))
	kube.AllowGet("app", "matrix", "absent")
	podOf := func(account string) []string {
		api, uid := kube.API.PodToken(t, e.namespace, account+"-0", account, "", time.Hour)
		vault, _ := kube.API.PodToken(t, e.namespace, account+"-0", account, "vault", time.Hour)
		return []string{class.AttributePodName, account + "-0", class.AttributePodUID, uid, class.AttributeAccount, account,
			class.AttributeTokens, tokensJSON(map[string]token{"": {api, tokenExpiry}, "vault": {vault, tokenExpiry}})}
	}
	params := e.params(append(podOf("app"), "vaultAuthMountPath", "")...)
	s := serve(t, e.Vault.Address, readWith(t, kube.API.Kubeconfig))

	resp, err := s.Mount(t.Context(), mountRequest(params, nil))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]file{"token": {0o644, canaryPlaintext}}, filesOf(resp)); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(s.log.String(), "ciphertext=api-server source=vault") {
		t.Errorf("the log does not have the source of the ciphertext:\n%s", s.log)
	}

	t.Run("tokens in secrets", func(t *testing.T) {
		without := merged(params)
		delete(without, class.AttributeTokens)
		if _, err := s.Mount(t.Context(),
			mountRequest(without, map[string]string{class.AttributeTokens: params[class.AttributeTokens]})); err != nil {
			t.Error(err)
		}
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

// readFailures returns the failures when the provider reads the Secret as the pod, from a real API server and from a
// server that causes what a real one does not do on demand.
func (e *failureEnv) readFailures(t *testing.T) []failureTest {
	kube := e.withAPIServer()
	asPod := e.asPod(kube.API)
	tokensText := asPod[len(asPod)-1]
	var tokens map[string]token
	if err := json.Unmarshal([]byte(tokensText), &tokens); err != nil {
		t.Fatal(err)
	}
	forgery := fixture.Issuer().PodToken(e.namespace, "app-0", asPod[1], "app", "", time.Hour)
	opaque := "0paque-" + rand.Text()
	for name, text := range map[string]string{"API server": tokens[""].Token, "Vault": tokens["vault"].Token,
		"nobody": forgery, "an unknown form": opaque} {
		e.leaks.add("token for "+name, text)
	}
	secret := e.ciphertextSecret("x", canaryPlaintext)
	secret.Data["x"] = []byte(e.good["x"])
	kube.CreateSecret(secret)
	kube.CreateSecret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: "empty"}})
	kube.AllowGet("app", "matrix", "absent", "empty")

	mount := func(changes ...string) *v1alpha1.MountRequest {
		return e.mount(nil, append(slices.Clone(asPod), changes...)...)
	}
	withAPIToken := func(jwt string, expires time.Time) *v1alpha1.MountRequest {
		return mount(class.AttributeTokens, tokensJSON(map[string]token{"": {jwt, expires}, "vault": tokens["vault"]}))
	}
	kubeReader := readWith(t, kube.API.Kubeconfig)
	dead := readAt(t, "http://"+deadAddress(t))
	answers := func(code int, text string) func(*Config) {
		return readFrom(t, func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, code, text) })
	}
	// repeats responds with an error that repeats the whole request.
	repeats := func(code int) func(*Config) {
		return readFrom(t, func(w http.ResponseWriter, r *http.Request) {
			answerJSON(w, code, statusJSON(code, "no "+r.Header.Get("Authorization")+" "+e.good["x"]))
		})
	}
	var busy, long, soon atomic.Int32
	t.Cleanup(func() {
		if busy.Load() != 3 || long.Load() != 2 || soon.Load() != 2 {
			t.Errorf("requests of two mounts: %d when busy, %d when too long, %d with retryAfterSeconds",
				busy.Load(), long.Load(), soon.Load())
		}
	})
	read := func(class string) map[string]float64 {
		return map[string]float64{"kubernetes_requests_total{status_class=" + class + "}": 1,
			"kubernetes_request_duration_seconds": 1, "mount_duration_seconds{source=none}": 1}
	}

	return []failureTest{
		fails("read as the pod", nil, mount()).with(kubeReader),
		fails("read as the pod, tokens in the secrets", nil,
			e.mount(map[string]string{class.AttributeTokens: tokensText}, append(slices.Clone(asPod),
				class.AttributeTokens, "")...)).with(kubeReader),
		fails("no such Secret", failure.SecretNotFound, mount("secretName", "absent"),
			"Secret "+e.namespace+"/absent", `secrets "absent" not found`, "secretName").with(kubeReader),
		fails("Secret that is forbidden", failure.SecretForbidden, mount("secretName", "forbidden"),
			e.namespace+"/app", `cannot get resource "secrets"`, "`nodePublishSecretRef: {name: forbidden}`",
			"the owner of the namespace gives the account a Role").with(kubeReader),
		// The provider has the kubeconfig of an administrator, and must not use its credentials.
		fails("token that the API server refuses", failure.APIServerTokenRejected,
			withAPIToken(forgery, time.Time{}), "Unauthorized", "- audience: ''").with(kubeReader),
		fails("token of another pod for the API server", failure.TokenMismatch,
			e.mount(nil, class.AttributeTokens, tokensText)).with(kubeReader),
		fails("Secret without entries", failure.SecretEmpty, mount("secretName", "empty"), "it has no entries").
			with(kubeReader),

		fails("API server that is not there", failure.APIServerUnavailable, mount(),
			"connection refused", "can be reached").with(dead).untilTimeout().counting(read("none")),
		fails("expired token for the API server", failure.TokenExpired,
			withAPIToken(tokens[""].Token, time.Now().Add(-time.Second)), `audience "" expired`, "as the pod").with(dead),
		fails("token of no known form", failure.TokenInvalid, withAPIToken(opaque, time.Time{})).with(repeats(403)),
		fails("forbidden with everything in it", failure.SecretForbidden, mount()).with(repeats(403)),
		fails("error with everything in it", failure.APIServerUnavailable, mount()).with(repeats(500)).untilTimeout(),
		fails("error for ever", failure.APIServerUnavailable, mount(), "etcd is away", "nodePublishSecretRef").
			with(answers(500, statusJSON(500, "etcd is away"))).untilTimeout(),
		fails("API server that is something else", failure.APIServerUnavailable, mount(), "reading Secret").
			with(readFrom(t, func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, "<html>", canaryPlaintext, r.Header.Get("Authorization"), e.good["x"])
			})).untilTimeout().counting(read("2xx")),
		fails("another kind", failure.APIServerUnavailable, mount(), "reading Secret").
			with(answers(200, `{"kind":"Pod","apiVersion":"v1"}`)).untilTimeout(),
		fails("no data", failure.SecretEmpty, mount(), "it has no entries").
			with(answers(200, `{"kind":"Secret","apiVersion":"v1"}`)),
		fails("null", failure.SecretEmpty, mount(), "it has no entries").with(answers(200, "null")),
		fails("too many entries", failure.SecretTooLarge, mount()).
			with(answers(200, `{"kind":"Secret","data":{"a":""`+strings.Repeat(`,"a":""`, maxEntries)+"}}")),
		fails("API server that does not answer", failure.MountTimeout, mount(), "not finished within 1s",
			"reading Secret "+e.namespace+"/matrix").
			with(readFrom(t, func(_ http.ResponseWriter, r *http.Request) { hold(r) })).untilTimeout(),
		fails("answer without an end", failure.APIServerUnavailable, mount(), "longer than 4 MiB").
			with(readFrom(t, func(w http.ResponseWriter, _ *http.Request) {
				long.Add(1)
				fmt.Fprint(w, `{"kind":"Secret","apiVersion":"v1","data":{"x":"`)
				for range maxSecretResponse/len(e.good["x"]) + 1 {
					fmt.Fprint(w, e.good["x"])
				}
			})),
		fails("asks to retry later", failure.APIServerUnavailable, mount(), "busy").
			with(readFrom(t, func(w http.ResponseWriter, _ *http.Request) {
				soon.Add(1)
				answerJSON(w, 429, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"busy","code":429,`+
					`"details":{"retryAfterSeconds":3600}}`)
			})),
		fails("busy, then not", nil, mount()).with(readFrom(t, func(w http.ResponseWriter, r *http.Request) {
			if busy.Add(1) == 1 {
				answerJSON(w, 429, statusJSON(429, "busy"))
				return
			}
			if r.Header.Get("Authorization") != "Bearer "+tokens[""].Token {
				t.Errorf("a request without the pod's token")
			}
			answerJSON(w, 200, toJSON(secret))
		})),
	}
}

// readFrom starts a server with the handler and makes it the provider's API server.
func readFrom(t *testing.T, handler http.HandlerFunc) func(*Config) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return readAt(t, server.URL)
}

func readAt(t *testing.T, address string) func(*Config) {
	t.Helper()
	reader, err := NewSecretReader(&rest.Config{Host: address})
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.SecretReader = reader }
}

func answerJSON(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprint(w, text)
}

// statusJSON is the response of the API server to a failed request.
func statusJSON(code int, message string) string {
	return toJSON(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status: metav1.StatusFailure, Message: message, Code: int32(code)})
}

// TestInCluster verifies the configuration from the environment of a pod.
func TestInCluster(t *testing.T) {
	env := map[string]string{"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
	config := InCluster(func(name string) string { return env[name] })
	if config == nil || config.Host != "https://[fd00::1]:443" || config.CAFile != inClusterCA {
		t.Errorf("got %v", config)
	}
	if config.BearerToken != "" || config.BearerTokenFile != "" {
		t.Error("the configuration has credentials")
	}
	if InCluster(func(string) string { return "" }) != nil {
		t.Error("no error without the environment variables")
	}
	if _, err := NewSecretReader(&rest.Config{Host: "https://x",
		TLSClientConfig: rest.TLSClientConfig{CAFile: "/nowhere/ca.crt"}}); err == nil {
		t.Error("no error without the CA file")
	}
}

// TestReaderHasNoCredentials verifies that credentials in the configuration are dropped.
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
