package provider

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// TestMountFailures causes each failure of the catalog, with a real Vault and a real API server; a proxy of Vault does
// what those do not do on demand. Each has its reason in the message, the code, the metric, the log and the audit
// record, and leaks nothing.
func TestMountFailures(t *testing.T) {
	e := newEnv(t)
	e.write(t, "sys/policies/acl/"+e.policy, map[string]any{
		"policy": fmt.Sprintf(`path "transit/decrypt/%s*" { capabilities = ["update"] }`, e.namespace),
	})
	kube := testenv.SharedAPIServer(t)
	asPod := e.asPod(t, kube)
	allowGet(t, kube, e.namespace, "absent", "empty")
	unknown := issuer().PodToken(e.namespace, "app-0", "uid-0", "app", "", time.Hour) // to the API server
	x := e.encrypt(t, ciphertext.Strict, "matrix", "x", `{"a": "`+canaryPlaintext+`"}`)
	good := map[string]string{"x": x}
	moved := map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "y", "v")}

	sealed := newEnvIn(t, testenv.NewVault(t))
	if err := sealed.vault.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	retired := newEnv(t)
	retiredEntries := map[string]string{"x": retired.encrypt(t, ciphertext.Strict, "matrix", "x", "v")}
	retired.write(t, retired.key.String()+"/rotate", nil)
	retired.write(t, retired.key.String()+"/config", map[string]any{"min_decryption_version": 2})
	answers := func(status int, text string) string {
		return faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(status)
			fmt.Fprint(w, text)
			return true
		})
	}
	decryptAnswers := func(status int, text string) string {
		return faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
			if isDecrypt(r) {
				w.WriteHeader(status)
				fmt.Fprint(w, text)
			}
			return isDecrypt(r)
		})
	}
	untrusted := testenv.Front(t, e.vault,
		&tls.Config{Certificates: []tls.Certificate{testenv.NewCA(t, "nobody's").Serving(t, "127.0.0.1").TLS(t)}}, nil).URL
	direct, dead := e.vault.Address, "http://"+deadAddress(t)
	withKube := withAPIServer(t, kube.Kubeconfig)
	withoutKube, err := NewSecretReader(&rest.Config{Host: "http://" + deadAddress(t)})
	if err != nil {
		t.Fatal(err)
	}
	lateKube, err := NewSecretReader(
		&rest.Config{Host: faulty(t, e.vault, func(_ http.ResponseWriter, r *http.Request) bool { hold(r); return true })})
	if err != nil {
		t.Fatal(err)
	}

	manyEntries, err := NewSecretReader(
		&rest.Config{Host: faulty(t, e.vault, func(w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprint(w, `{"kind":"Secret","data":{"a":""`+strings.Repeat(`,"a":""`, maxEntries)+"}}")
			return true
		})})
	if err != nil {
		t.Fatal(err)
	}

	type cause struct {
		address string
		params  map[string]string
		entries map[string]string
		change  func(*Config)
		broken  func(*served)
	}
	causes := map[*failure.Reason]cause{
		failure.InvalidParameters: {direct, e.params("scope", "wide"), good, nil, nil},
		failure.InvalidRequest:    {direct, nil, good, nil, nil},
		failure.RequestTooLarge: {direct, e.params(),
			map[string]string{"x": strings.Repeat(canaryPlaintext, maxRequest/len(canaryPlaintext)+1)},
			nil, nil},
		failure.TokenMissing: {direct, e.params("audience", "team"), good, nil, nil},
		failure.TokenInvalid: {direct,
			e.params(class.AttributeTokens, tokensJSON(map[string]token{"vault": {"x", time.Time{}}})), good, nil, nil},
		failure.TokenMismatch: {direct, e.params(class.AttributePodUID, "uid-1", class.AttributeTokens,
			e.vaultToken(e.namespace, "app", "vault")), good, nil, nil},
		failure.TokenExpired: {direct,
			e.params(class.AttributeTokens, tokensJSON(map[string]token{"vault": {e.jwt, time.Now().Add(-time.Minute)}})), good,
			nil, nil},
		failure.CiphertextMissing: {direct, e.params(), nil, nil, nil},
		failure.SecretNotFound:    {direct, e.params(append(asPod, "secretName", "absent")...), nil, withKube, nil},
		failure.SecretForbidden:   {direct, e.params(append(asPod, "secretName", "forbidden")...), nil, withKube, nil},
		failure.APIServerTokenRejected: {direct,
			e.params(class.AttributeTokens,
				tokensJSON(map[string]token{"": {unknown, time.Time{}}, "vault": {e.jwt, time.Time{}}})),
			nil, withKube, nil},
		failure.APIServerUnavailable: {direct, e.params(asPod...), nil,
			func(c *Config) { c.SecretReader, c.MountTimeout = withoutKube, 5*time.Second }, nil},
		failure.SecretTooLarge: {direct, e.params(asPod...), nil,
			func(c *Config) { c.SecretReader = manyEntries }, nil},
		failure.SecretEmpty:           {direct, e.params(append(asPod, "secretName", "empty")...), nil, withKube, nil},
		failure.EntryNotFound:         {direct, e.params("objects", "- {objectName: y}"), good, nil, nil},
		failure.InvalidEntryName:      {direct, e.params(), map[string]string{"..data": x}, nil, nil},
		failure.InvalidCiphertext:     {direct, e.params(), map[string]string{"x": canaryPlaintext}, nil, nil},
		failure.LoginDenied:           {direct, e.params("roleName", "nobody"), good, nil, nil},
		failure.LoginIdentityMismatch: {answers(200, `{"auth": {"client_token": "t"}}`), e.params(), good, nil, nil},
		failure.AuthMountNotFound:     {answers(404, "<html>"+canaryPlaintext), e.params(), good, nil, nil},
		failure.DecryptDenied:         {direct, e.params("transitKey", "another"), good, nil, nil},
		failure.VaultTokenExpired: {decryptAnswers(403, `{"errors": ["permission denied", "invalid token"]}`),
			e.params(), good,
			nil, nil},
		failure.KeyNotFound:        {direct, e.params("transitKey", e.namespace+"-gone"), good, nil, nil},
		failure.CiphertextMismatch: {direct, e.params(), moved, nil, nil},
		failure.KeyVersionRetired:  {direct, retired.params(), retiredEntries, nil, nil},
		failure.KeyVersionNotFound: {direct, e.params(), map[string]string{"x": "vault:v99:" + x[len("vault:v1:"):]},
			nil, nil},
		failure.DecryptFailed:    {direct, e.params("scope", "none"), good, nil, nil},
		failure.VaultSealed:      {sealed.vault.Address, sealed.params(), good, nil, nil},
		failure.VaultUnreachable: {dead, e.params(), good, nil, nil},
		failure.VaultUntrusted:   {untrusted, e.params(), good, nil, nil},
		failure.VaultRateLimited: {answers(429, `{"errors": ["rate limit quota exceeded"]}`), e.params(), good, nil, nil},
		failure.NotVault:         {answers(200, "<html>"+canaryPlaintext), e.params(), good, nil, nil},
		failure.VaultError:       {decryptAnswers(500, `{"errors": ["internal error"]}`), e.params(), good, nil, nil},
		failure.InvalidContent:   {direct, e.params("objects", "- {objectName: x, field: b}"), good, nil, nil},
		failure.VolumeTooLarge: {direct, e.params("objects", manyObjects("x", 6)),
			map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", strings.Repeat("x", 700_000))}, nil, nil},
		failure.NodeBusy: {direct, e.params(), map[string]string{"x": strings.Repeat("x", 64<<10)}, nil, func(s *served) {
			s.provider.requests = fullPool(t)
		}},
		failure.MountTimeout: {direct, e.params(asPod...), nil, func(c *Config) { c.SecretReader = lateKube }, nil},
		failure.Internal: {dead, e.params(), good, nil, func(s *served) {
			s.provider.vaults[dead] = nil
		}},
	}
	create(t, kube, "/api/v1/namespaces/"+e.namespace+"/secrets",
		corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "empty"}})

	for _, reason := range failure.All() {
		c, ok := causes[reason]
		if !ok {
			t.Errorf("nothing here causes %s", reason)
			continue
		}
		t.Run(reason.String(), func(t *testing.T) {
			t.Parallel()
			change := c.change
			if change == nil {
				change = func(*Config) {}
			}
			s := serve(t, c.address, within(time.Second), change)
			if c.broken != nil {
				c.broken(s)
			}
			request := mountRequest(c.params, c.entries)
			if c.params == nil {
				request.Attributes = "[]"
			}
			_, err := s.Mount(t.Context(), request)
			wantError(t, err, reason)
			if n := series(t, s.provider)["mounts_total{reason="+reason.String()+",result=failure}"]; n != 1 {
				t.Errorf("the metric is %v, want 1", n)
			}
			if records := s.records(t); len(records) != 1 || records[0].Reason != reason.String() {
				t.Errorf("audit records: %+v", records)
			}
			if want := "reason=" + reason.String(); reason != failure.Internal && !strings.Contains(s.log.String(), want) {
				t.Errorf("the log does not have %s:\n%s", want, s.log)
			}
			clean(t, append([]string{e.jwt, x}, canaries...), err.Error(), s.log.String(), s.audit.String())
		})
	}
}

func manyObjects(entry string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "- {objectName: f%d, secretKey: %s}\n", i, entry)
	}
	return b.String()
}
