package provider

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// Texts that no message and no log may have in them.
const (
	canaryPlaintext  = "c4nary-plaintext"
	canaryCiphertext = "vault:v1:Y2FuYXJ5LWNpcGhlcnRleHQtdGhhdC1pcy1sb25nLWVub3VnaA=="
)

// canaryToken has the claims of pod app-0 in namespace demo, and no signature that
// anybody accepts.
var canaryToken = forged(demoClaims)

// demoClaims are those of pod app-0 in namespace demo, with service account app.
var demoClaims = map[string]any{"exp": time.Now().Add(time.Hour).Unix(), "kubernetes.io": map[string]any{
	"namespace": "demo", "serviceaccount": map[string]any{"name": "app", "uid": "account-uid"},
	"pod": map[string]any{"name": "app-0", "uid": "uid-0"},
}}

var canaries = []string{canaryPlaintext, canaryToken, canaryCiphertext, "Y2FuYXJ5"}

// plainParams are valid parameters for no Vault in particular.
func plainParams(more ...string) map[string]string {
	e := &env{namespace: "demo", key: ciphertext.Key{Mount: "transit", Name: "matrix"}, jwt: canaryToken}
	return merged(e.params(), more...)
}

// TestBadInput has the requests that are refused before anything is sent to
// Vault.
func TestBadInput(t *testing.T) {
	var asked atomic.Int32
	vault := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer vault.Close()
	s := serve(t, vault.URL)
	good := map[string]string{"x": canaryCiphertext}

	tests := []struct {
		name    string
		params  map[string]string
		entries map[string]string
		reason  *failure.Reason
		texts   []string
	}{
		{"no roleName", plainParams("roleName", ""), good, failure.InvalidParameters,
			[]string{"SecretProviderClass demo/matrix", "roleName: Required value"}},
		{"no secretName", plainParams("secretName", ""), good, failure.InvalidParameters,
			[]string{"secretName: Required value"}},
		{"no transitKey", plainParams("transitKey", " "), good, failure.InvalidParameters,
			[]string{"transitKey: Required value"}},
		{"everything at once", plainParams("roleName", "", "secretName", "", "transitKey", "", "scope", "wide",
			"rolName", "x",
			"objects", "- {objectName: ., filePermission: 0888}\n- {objectNam: a}"), good, failure.InvalidParameters,
			[]string{"roleName: Required value", "secretName: Required value", "transitKey: Required value",
				"scope: Unsupported value", "did you mean roleName?",
				"objects[0].objectName: ", "objects[0].filePermission: ", "objects[1].objectNam: Forbidden",
				"objects[1].objectName: Required value"}},
		{"no namespace", plainParams(class.AttributePodNamespace, ""), good, failure.InvalidParameters,
			[]string{"pod.namespace", "podInfoOnMount"}},
		{"namespace that is none", plainParams(class.AttributePodNamespace, "a/b"), good, failure.InvalidParameters,
			[]string{"pod.namespace"}},
		{"tokens that are none", plainParams(class.AttributeTokens, `["`+canaryToken+`"]`), good,
			failure.InvalidParameters, []string{"serviceAccount.tokens: is not"}},

		{"entry that is missing", plainParams("objects", "- {objectName: y}\n- {objectName: x}\n- {objectName: z}"),
			good, failure.EntryNotFound,
			[]string{"Secret demo/matrix", `no entry "y", "z"`, `it has "x"`, "nodePublishSecretRef names the same Secret"}},
		{"entry that is empty", plainParams(), map[string]string{"x": "", "y": canaryCiphertext},
			failure.InvalidCiphertext, []string{`entry "x" is empty`}},
		{"entry of plaintext", plainParams(), map[string]string{"x": canaryPlaintext}, failure.InvalidCiphertext,
			[]string{`entry "x" is not ciphertext`, "may be plaintext"}},
		{"entry that is not base64", plainParams(), map[string]string{"x": "vault:v1:***" + canaryPlaintext},
			failure.InvalidCiphertext, []string{`entry "x" is damaged ciphertext`, "not base64"}},
		{"entry without a version", plainParams(), map[string]string{"x": "vault:" + canaryPlaintext},
			failure.InvalidCiphertext, []string{`entry "x" is not ciphertext`}},
		{"several bad entries", plainParams(),
			map[string]string{"x": "", "y": canaryPlaintext, "z": "vault:v0:" + canaryPlaintext},
			failure.InvalidCiphertext, []string{`entry "x"`, `entry "y"`, `entry "z"`}},

		{"no token", plainParams(class.AttributeTokens, ""), good, failure.TokenMissing,
			[]string{`no service account token for audience "vault" (it sent none)`, "spec.tokenRequests", "- audience: vault"}},
		{"no token of that audience", plainParams("audience", "team"), good, failure.TokenMissing,
			[]string{`audience "team"`, `it sent those of "vault"`, "- audience: team"}},
		{"no token of that audience among several",
			plainParams(class.AttributeTokens,
				tokensJSON(map[string]token{"": {canaryToken, time.Time{}}, "x": {canaryToken, time.Time{}}})), good,
			failure.TokenMissing, []string{`it sent those of "", "x"`}},
		{"expired token",
			plainParams(class.AttributeTokens,
				tokensJSON(map[string]token{"vault": {canaryToken, time.Now().Add(-time.Minute)}})), good,
			failure.TokenExpired, []string{`audience "vault" expired at `, "clock of the node"}},
		{"token that is none",
			plainParams(class.AttributeTokens, tokensJSON(map[string]token{"vault": {"s3cret", time.Time{}}})), good,
			failure.TokenInvalid, []string{`the token of audience "vault" is not a Kubernetes service account token`,
				"nothing but the driver connects to"}},
		{"token that is bound to no pod",
			plainParams(class.AttributeTokens,
				tokensJSON(map[string]token{"vault": {forged(without(demoClaims, "pod")), time.Time{}}})), good,
			failure.TokenMismatch, []string{"belongs to another pod", "no claim pod.name (it is bound to no pod)"}},
		{"token of another pod", plainParams(class.AttributePodName, "app-1"), good, failure.TokenMismatch,
			[]string{`its claim pod.name is not the csi.storage.k8s.io/pod.name "app-1" of the request`}},
		{"token of an earlier pod of that name", plainParams(class.AttributePodUID, "uid-1"), good,
			failure.TokenMismatch, []string{`its claim pod.uid is not the csi.storage.k8s.io/pod.uid "uid-1"`}},
		{"token of another account", plainParams(class.AttributeAccount, "other"), good, failure.TokenMismatch,
			[]string{`its claim serviceaccount.name is not the csi.storage.k8s.io/serviceAccount.name "other"`}},
		{"token of another namespace", plainParams(class.AttributePodNamespace, "other"), good, failure.TokenMismatch,
			[]string{`its claim namespace is not the csi.storage.k8s.io/pod.namespace "other"`}},
		{"token that says nothing of its end",
			plainParams(class.AttributeTokens,
				tokensJSON(map[string]token{"vault": {forged(without(demoClaims, "exp")), time.Now().Add(time.Hour)}})), good,
			failure.TokenExpired, []string{"expired at"}},
		{"no pod information", plainParams(class.AttributePodName, "", class.AttributePodUID, "",
			class.AttributeAccount, ""), good, failure.TokenMismatch, []string{"podInfoOnMount: true"}},
		{"no ciphertext, no token to read it", plainParams(), nil, failure.CiphertextMissing,
			[]string{"nodePublishSecretRef: {name: matrix}", "- audience: ''", "`get`"}},
		{"no ciphertext, no API server",
			plainParams(class.AttributeTokens,
				tokensJSON(map[string]token{"": {canaryToken, time.Time{}}, "vault": {canaryToken, time.Time{}}})), nil,
			failure.CiphertextMissing, []string{"the provider has no API server", "nodePublishSecretRef: {name: matrix}"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			resp, err := s.Mount(t.Context(), mountRequest(test.params, test.entries))
			wantError(t, err, test.reason, test.texts...)
			if resp != nil {
				t.Error("an answer beside the error")
			}
			clean(t, canaries, err.Error(), s.log.String())
			if n := asked.Swap(0); n > 0 {
				t.Errorf("Vault was asked %d times", n)
			}
		})
	}

	t.Run("attributes", func(t *testing.T) {
		for _, text := range []string{"x" + canaryPlaintext, `[]`, `{"a": 1}`,
			`{"roleName": {"a": "` + canaryPlaintext + `"}}`, `{"a": null}`} {
			_, err := s.Mount(t.Context(), &v1alpha1.MountRequest{Attributes: text, Secrets: "null"})
			wantError(t, err, failure.InvalidRequest, "attributes")
			clean(t, canaries, err.Error(), s.log.String())
		}
	})
	t.Run("secrets", func(t *testing.T) {
		for _, text := range []string{"x" + canaryPlaintext, `["` + canaryPlaintext + `"]`,
			`{"a": ["` + canaryPlaintext + `"]}`} {
			_, err := s.Mount(t.Context(), &v1alpha1.MountRequest{Attributes: toJSON(plainParams()), Secrets: text})
			wantError(t, err, failure.InvalidRequest, "secrets")
			clean(t, canaries, err.Error(), s.log.String())
		}
	})
}

// without returns claims without one of them.
func without(claims map[string]any, name string) map[string]any {
	private := maps.Clone(claims["kubernetes.io"].(map[string]any))
	delete(private, name)
	claims = maps.Clone(claims)
	claims["kubernetes.io"] = private
	delete(claims, name)
	return claims
}

// A name of any length is no work and no message of that length.
func TestLongInputIsClipped(t *testing.T) {
	s := serve(t, "http://127.0.0.1:1")
	params := plainParams("scope", strings.Repeat("s", class.MaxParameter))
	for i := range 100 {
		params[strings.Repeat("n", 9000+i)] = "x"
	}
	_, err := s.Mount(t.Context(), mountRequest(params, nil))
	wantError(t, err, failure.InvalidParameters, "scope: Unsupported value")
	if n := len(err.Error()); n > 2*failure.MaxMessage {
		t.Errorf("the message has %d bytes", n)
	}
}
