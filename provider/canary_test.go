package provider

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// TestCanary lets plaintext, tokens and ciphertext that can be told from all
// else pass through a mount that works, and through everything that can go wrong
// with one. None of it is in the log at debug level, in the words of client-go at
// the highest verbosity that --log-level allows, in the error (which is the text
// of the pod's event) or on the metrics page; and no series comes into being.
func TestCanary(t *testing.T) {
	kube := testenv.SharedAPIServer(t)
	e := newEnv(t)
	kube.CreateServiceAccount(t, e.namespace, "app")
	if err := e.vault.TrustAPIServer(t.Context(), "kubernetes", kube, kube.ReviewerToken(t)); err != nil {
		t.Fatal(err)
	}
	err := e.vault.AllowLogin(t.Context(),
		testenv.Role{Name: e.namespace, Namespace: e.namespace, ServiceAccount: "app", Policies: []string{e.policy}})
	if err != nil {
		t.Fatal(err)
	}

	var leaks leakDetector
	plain := "c4nary-" + rand.Text()
	made := func(entry, plaintext string) string {
		text := e.encrypt(t, ciphertext.Strict, "matrix", entry, plaintext)
		leaks.add("ciphertext of "+entry, strings.TrimPrefix(text, "vault:v1:"))
		return text
	}
	leaks.add("plaintext", plain)
	good := map[string]string{"x": made("x", plain), "doc": made("doc", `{"a": {"b": "`+plain+`"}, "c": null}`)}
	huge := map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", strings.Repeat(plain+"\n", 20_000))}
	apiToken, uid := kube.PodToken(t, e.namespace, "app-0", "app", "", time.Hour)
	vaultJWT, _ := kube.PodToken(t, e.namespace, "app-0", "app", "vault", time.Hour)
	refused := issuer().PodToken(e.namespace, "app-0", uid, "app", "", time.Hour)
	leaks.add("token that the API server does not know", refused)
	leaks.add("token for the API server", apiToken)
	leaks.add("token for Vault", vaultJWT)
	leaks.add("token of the issuer", e.jwt)
	expired := issuer().PodToken(e.namespace, "app-0", "uid-0", "app", "vault", -time.Hour)
	leaks.add("expired token", expired)
	opaque := "0paque-" + rand.Text()
	leaks.add("token of no known form", opaque)
	role := "hvs." + rand.Text() // a token of Vault's in the wrong place
	leaks.add("role that looks like a token", role)
	create(t, kube, "/api/v1/namespaces/"+e.namespace+"/secrets", corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "matrix"}, Type: ciphertext.Type, Data: map[string][]byte{"x": []byte(good["x"])},
	})
	allowGet(t, kube, e.namespace, "matrix", "absent")

	// What Vault gives out is learned on the way.
	vault := func(fault func(w http.ResponseWriter, r *http.Request) bool) string {
		return faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
			if token := r.Header.Get("X-Vault-Token"); token != "" {
				leaks.add("Vault token", token)
			}
			return fault(w, r)
		})
	}
	direct := vault(func(http.ResponseWriter, *http.Request) bool { return false })
	// echo says no in words that have everything in them that was sent.
	echo := func(status int, when func(*http.Request) bool) string {
		return vault(func(w http.ResponseWriter, r *http.Request) bool {
			if !when(r) {
				return false
			}
			var in struct {
				JWT   string
				Batch []struct{ Ciphertext string } `json:"batch_input"`
			}
			json.NewDecoder(r.Body).Decode(&in)
			words := []string{"no " + in.JWT, "no " + r.Header.Get("X-Vault-Token")}
			for _, item := range in.Batch {
				words = append(words, "no "+item.Ciphertext)
			}
			w.WriteHeader(status)
			fmt.Fprint(w, toJSON(map[string]any{"errors": words}))
			return true
		})
	}
	// answering has Vault's place taken for one kind of request.
	answering := func(status int, text string, when func(*http.Request) bool) string {
		return vault(func(w http.ResponseWriter, r *http.Request) bool {
			if when(r) {
				io.Copy(io.Discard, r.Body)
				w.WriteHeader(status)
				fmt.Fprint(w, text)
			}
			return when(r)
		})
	}
	results := func(result string) string {
		return answering(200, `{"data": {"batch_results": [`+result+`]}}`, isDecrypt)
	}
	holding := func(when func(*http.Request) bool) string {
		return vault(func(_ http.ResponseWriter, r *http.Request) bool {
			if when(r) {
				hold(r)
			}
			return when(r)
		})
	}
	sealed := newEnvIn(t, testenv.NewVault(t))
	if err := sealed.vault.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}

	api := func(handler http.HandlerFunc) func(*Config) {
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		k, err := NewSecretReader(&rest.Config{Host: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		return func(c *Config) { c.SecretReader = k }
	}
	apiSays := func(code int) func(*Config) {
		return api(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			fmt.Fprint(w, toJSON(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
				"message": "no " + r.Header.Get("Authorization") + " " + good["x"]}))
		})
	}
	both := func(api, vault string) string {
		return tokensJSON(map[string]token{"": {api, time.Time{}}, "vault": {vault, time.Time{}}})
	}
	asPod := func(more ...string) map[string]string {
		return e.params(
			append([]string{"vaultAuthMountPath", "", class.AttributePodUID, uid, class.AttributeTokens,
				both(apiToken, vaultJWT)}, more...)...)
	}
	object := func(text string) map[string]string { return e.params("objects", "- {objectName: f, "+text+"}") }
	one := map[string]string{"x": good["x"]}
	raw := func(attributes, secrets string) *v1alpha1.MountRequest {
		return &v1alpha1.MountRequest{Attributes: attributes, Secrets: secrets, TargetPath: "/t"}
	}
	nothing := func(*Config) {}
	apiServer := withAPIServer(t, kube.Kubeconfig)
	all := func(*http.Request) bool { return true }

	// client-go's log, as cmd/secretmanager-provider has it with --log-level=debug.
	var words logBuffer
	klog.SetSlogLogger(slog.New(slog.NewTextHandler(&words, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(klog.ClearLogger)
	t.Cleanup(func() { leaks.check(t, "client-go's log", words.String()) })

	mount := mountRequest
	for _, test := range []struct {
		name    string
		address string
		change  func(*Config)
		request *v1alpha1.MountRequest
		reason  *failure.Reason
	}{
		{"mounted", direct, nothing, mount(e.params(), good), nil},
		{"mounted, read as the pod", direct, apiServer, mount(asPod(), nil), nil},
		{"mounted, tokens among the secrets", direct, apiServer,
			mount(asPod(class.AttributeTokens, ""), map[string]string{class.AttributeTokens: both(apiToken, vaultJWT)}), nil},

		{"attributes that are not JSON", direct, nothing, raw(plain+e.jwt, "null"), failure.InvalidRequest},
		{"attribute that is no text", direct, nothing, raw(`{"roleName": {"`+plain+`": "`+e.jwt+`"}}`, "null"),
			failure.InvalidRequest},
		{"secrets that are not JSON", direct, nothing, raw(toJSON(e.params()), plain+good["x"]), failure.InvalidRequest},
		{"secret that is no text", direct, nothing, raw(toJSON(e.params()), `{"x": ["`+plain+`"]}`), failure.InvalidRequest},
		{"tokens that are not JSON", direct, nothing, mount(e.params(class.AttributeTokens, `["`+e.jwt+`"]`), good),
			failure.InvalidParameters},
		{"parameters that are wrong", direct, nothing,
			mount(e.params("scope", "wide", "transitKey", "a/../b", "objects", "- {objectName: ..}"), good),
			failure.InvalidParameters},
		{"parameter that is a token", direct, nothing, mount(e.params("scope", e.jwt), good), failure.InvalidParameters},
		{"parameter that is ciphertext", direct, nothing,
			mount(e.params("transitKey", good["x"], "objects", good["x"]), good), failure.InvalidParameters},

		{"everything that is wrong with a class", direct, nothing,
			mount(e.params("roleName", "", class.AttributePodNamespace, "", good["x"], e.jwt, "vaultTLSCert", e.jwt,
				"objects", "- {secretKey: x}\n- {objectName: a, objectName: b}\n- {objectName: ["+good["x"]+"], "+
					apiToken+": x}\n- {objectName: c, encoding: "+e.jwt+"}"), good), failure.InvalidParameters},

		{"role that looks like a token", direct, nothing, mount(e.params("roleName", role), good), failure.LoginDenied},
		{"names that are tokens", direct, nothing,
			mount(e.params(class.AttributeClass, e.jwt, class.AttributePodName, e.jwt, class.AttributeAccount, e.jwt),
				good), failure.InvalidParameters},

		{"no token", direct, nothing, mount(e.params("audience", "team"), good), failure.TokenMissing},
		{"expired token", direct, nothing,
			mount(
				e.params(class.AttributeTokens,
					tokensJSON(map[string]token{"vault": {e.jwt, time.Now().Add(-time.Hour)}})), good), failure.TokenExpired},
		{"no ciphertext", direct, nothing, mount(e.params(), nil), failure.CiphertextMissing},
		{"no API server", direct, nothing, mount(asPod(), nil), failure.CiphertextMissing},
		{"no such Secret", direct, apiServer, mount(asPod("secretName", "absent"), nil), failure.SecretNotFound},
		{"Secret that is forbidden", direct, apiServer, mount(asPod("secretName", "forbidden"), nil),
			failure.SecretForbidden},
		{"token that the API server refuses", direct, apiServer,
			mount(asPod(class.AttributeTokens, both(refused, vaultJWT)), nil), failure.APIServerTokenRejected},
		{"API server that repeats everything", direct, apiSays(403), mount(asPod(), nil), failure.SecretForbidden},
		{"API server with an error that repeats everything", direct, apiSays(500), mount(asPod(), nil),
			failure.APIServerUnavailable},
		{"token of no known form", direct, apiSays(403),
			mount(asPod(class.AttributeTokens, both(opaque, vaultJWT)), nil), failure.TokenInvalid},
		{"token of another pod", direct, apiServer, mount(e.params(class.AttributeTokens, both(apiToken, vaultJWT)), nil),
			failure.TokenMismatch},
		{"API server that is something else", direct, api(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "<html>", r.Header.Get("Authorization"), good["x"])
		}), mount(asPod(), nil), failure.APIServerUnavailable},
		{"API server that does not answer", direct, api(func(_ http.ResponseWriter, r *http.Request) { hold(r) }),
			mount(asPod(), nil), failure.MountTimeout},
		{"API server without an end", direct, api(func(w http.ResponseWriter, _ *http.Request) {
			for range maxSecretResponse/len(good["x"]) + 1 {
				fmt.Fprint(w, good["x"])
			}
		}), mount(asPod(), nil), failure.APIServerUnavailable},
		{"Secret without entries", direct, api(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"kind": "Secret", "apiVersion": "v1"}`)
		}), mount(asPod(), nil), failure.SecretEmpty},

		{"entry that is plaintext", direct, nothing, mount(e.params(), map[string]string{"x": plain}),
			failure.InvalidCiphertext},
		{"entry that has something after it", direct, nothing,
			mount(e.params(), map[string]string{"x": good["x"] + " " + plain}), failure.InvalidCiphertext},
		{"entry that is not there", direct, nothing, mount(object("secretKey: y"), good), failure.EntryNotFound},
		{"entry that cannot be a file", direct, nothing, mount(e.params(), map[string]string{"..x": good["x"]}),
			failure.InvalidEntryName},

		{"login that is refused", direct, nothing, mount(e.params("roleName", "nobody"), one), failure.LoginDenied},
		{"token that says that it is expired", direct, nothing,
			mount(e.params(class.AttributeTokens, tokensJSON(map[string]token{"vault": {expired, time.Time{}}})), one),
			failure.TokenExpired},
		{"login to Kubernetes that is refused", direct, nothing,
			mount(asPod(class.AttributeTokens, both(apiToken, apiToken)), one), failure.LoginDenied},
		{"login that is refused with everything in it", echo(403, isLogin), nothing, mount(e.params(), one),
			failure.LoginDenied},
		{"bad login with everything in it", echo(400, isLogin), nothing, mount(e.params(), one), failure.LoginDenied},
		{"no such auth mount", echo(404, isLogin), nothing, mount(e.params(), one), failure.AuthMountNotFound},
		{"login without a token", answering(200, `{"data": "`+plain+`"}`, isLogin), nothing, mount(e.params(), one),
			failure.NotVault},
		{"login to something else", answering(200, "<html>"+plain, all), nothing, mount(e.params(), one), failure.NotVault},
		{"login that is not answered", holding(isLogin), nothing, mount(e.params(), one), failure.VaultUnreachable},

		{"decrypt that is refused", direct, nothing, mount(e.params("transitKey", "another"), one), failure.DecryptDenied},
		{"decrypt that is refused with everything in it", echo(403, isDecrypt), nothing, mount(e.params(), one),
			failure.DecryptDenied},
		{"bad decrypt with everything in it", echo(400, isDecrypt), nothing, mount(e.params(), one), failure.DecryptFailed},
		{"no such key", echo(404, isDecrypt), nothing, mount(e.params(), one), failure.KeyNotFound},
		{"token that ends at once", answering(403, `{"errors": ["invalid token"]}`, isDecrypt), nothing,
			mount(e.params(), one), failure.VaultTokenExpired},
		{"Vault that is busy", echo(429, isDecrypt), nothing, mount(e.params(), one), failure.VaultRateLimited},
		{"Vault with an error of its own", echo(500, isDecrypt), nothing, mount(e.params(), one), failure.VaultError},
		{"Vault that is sealed", sealed.vault.Address, nothing, mount(e.params(), one), failure.VaultSealed},
		{"Vault that is not there", "http://" + deadAddress(t), nothing, mount(e.params(), one), failure.VaultUnreachable},
		{"decrypt that is not answered", holding(isDecrypt), nothing, mount(e.params(), one), failure.VaultUnreachable},
		{"decrypt by something else", answering(200, "<html>"+plain, isDecrypt), nothing, mount(e.params(), one),
			failure.NotVault},
		{"half an answer", answering(200, `{"data": {"batch_results": [{"plaintext": "`+plain, isDecrypt), nothing,
			mount(e.params(), one), failure.NotVault},
		{"results of another type", results(`{"plaintext": ["` + plain + `"]}`), nothing, mount(e.params(), one),
			failure.NotVault},
		{"results that are too many", results(`{"plaintext": "` + plain + `"}, {"plaintext": "` + plain + `"}`),
			nothing, mount(e.params(), one), failure.NotVault},
		{"result that is not base64", results(`{"plaintext": "` + plain + `-!"}`), nothing, mount(e.params(), one),
			failure.DecryptFailed},
		{"result that is an error with everything in it", results(`{"error": "no ` + good["x"] + `"}`), nothing,
			mount(e.params(), one), failure.DecryptFailed},
		{"entry that belongs elsewhere", direct, nothing, mount(e.params(), map[string]string{"y": good["x"]}),
			failure.CiphertextMismatch},
		{"key version that there is not", direct, nothing,
			mount(e.params(), map[string]string{"x": strings.Replace(good["x"], "v1", "v99", 1)}), failure.KeyVersionNotFound},

		{"field of what is no document", direct, nothing, mount(object("secretKey: x, field: a"), good),
			failure.InvalidContent},
		{"field that is not there", direct, nothing, mount(object("secretKey: doc, field: a.c"), good),
			failure.InvalidContent},
		{"field that is null", direct, nothing, mount(object("secretKey: doc, field: c"), good), failure.InvalidContent},
		{"content that is not base64", direct, nothing, mount(object("secretKey: x, encoding: base64"), good),
			failure.InvalidContent},
		{"content that is not hex", direct, nothing, mount(object("secretKey: x, encoding: hex"), good),
			failure.InvalidContent},
		{"answer that is too long", direct, nothing, mount(e.params("objects", manyOf("x", 7)), huge),
			failure.VolumeTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, test.address, cached, within(2*time.Second), test.change)
			start := slices.Sorted(maps.Keys(series(t, s.provider)))
			for range 2 { // the second time from the caches, where there is something in them
				resp, err := s.Mount(t.Context(), test.request)
				switch {
				case test.reason != nil:
					wantError(t, err, test.reason)
				case err != nil || len(resp.Files) == 0:
					t.Fatalf("%d files, %v", len(resp.GetFiles()), err)
				}
				leaks.check(t, "the error", fmt.Sprint(err, status.Convert(err).Details()))
			}
			log := s.log.String()
			if n := strings.Count(log, "mount failed") + strings.Count(log, "msg=mounted"); n != 2 {
				t.Errorf("%d lines of two mounts:\n%s", n, log)
			}
			leaks.check(t, "the log", log)
			s.provider.audit.Flush(t.Context())
			if audit := s.audit.String(); !strings.Contains(audit, auditSchema) {
				t.Errorf("the audit log:\n%s", audit)
			} else {
				leaks.check(t, "the audit log", audit)
			}
			body, _ := page(t, s.provider, "")
			if !strings.Contains(body, fmt.Sprintf(`%smounts_total{reason=%q,`, ours, nameOf(test.reason))) {
				t.Errorf("the page does not have what happened:\n%s", body)
			}
			leaks.check(t, "the metrics page", body)
			if diff := cmp.Diff(start, slices.Sorted(maps.Keys(series(t, s.provider)))); diff != "" {
				t.Errorf("series (-at the start +after):\n%s", diff)
			}
		})
	}

	t.Run("panics", func(t *testing.T) {
		for name, value := range map[string]any{"text": plain, "error": errors.New(e.jwt),
			"request": mount(e.params(), good), "nil pointer": nil} {
			s := serve(t, direct)
			calls := 0
			s.provider.now = func() time.Time {
				if calls++; calls != 2 { // the first is the beginning
					return time.Now()
				}
				if value == nil {
					panic((*served)(nil).endpoint)
				}
				panic(value)
			}
			_, err := s.Mount(t.Context(), mount(e.params(), good))
			if status.Code(err) != codes.Internal {
				t.Errorf("%s: %v", name, err)
			}
			if n := series(t, s.provider)["panics_total"]; n != 1 {
				t.Errorf("%s: %v panics counted", name, n)
			}
			body, _ := page(t, s.provider, "")
			leaks.check(t, "the error", fmt.Sprint(err))
			leaks.check(t, "the log", s.log.String())
			s.provider.audit.Flush(t.Context())
			leaks.check(t, "the audit log", s.audit.String())
			leaks.check(t, "the metrics page", body)
			if _, err := s.Mount(t.Context(), mount(e.params(), good)); err != nil {
				t.Errorf("%s: the mount after it: %v", name, err)
			}
		}
	})

	t.Run("client-go", func(t *testing.T) {
		// What is at debug level comes, or there would be nothing to see here.
		log := klog.FromContext(context.Background())
		log.V(4).Info("comes")
		log.V(5).Info("does not")
		if text := words.String(); !strings.Contains(text, "msg=comes") || strings.Contains(text, "does not") {
			t.Errorf("client-go's log:\n%s", text)
		}
	})
}

// manyOf lists so many objects of one entry.
func manyOf(entry string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "- {objectName: f%d, secretKey: %s}\n", i, entry)
	}
	return b.String()
}
