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

	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/transit"
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
	e := &env{namespace: "demo", key: transit.Key{Mount: "transit", Name: "matrix"}, jwt: canaryToken}
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
		{"no roleName", plainParams("roleName", ""), good, failure.InvalidParameters, []string{"SecretProviderClass demo/matrix", "roleName: is required"}},
		{"no secretName", plainParams("secretName", ""), good, failure.InvalidParameters, []string{"secretName: is required"}},
		{"no transitKey", plainParams("transitKey", " "), good, failure.InvalidParameters, []string{"transitKey: is required"}},
		{"everything at once", plainParams("roleName", "", "secretName", "", "transitKey", "", "scope", "wide", "rolName", "x",
			"objects", "- {objectName: ., filePermission: 0888}\n- {objectNam: a}"), good, failure.InvalidParameters,
			[]string{"roleName: is required", "secretName: is required", "transitKey: is required", `unknown scope "wide"`, `did you mean "roleName"?`,
				"objects[0].objectName: ", "objects[0].filePermission: ", "objects[1].objectNam: is not a field", "objects[1].objectName: is required"}},
		{"unknown parameter", plainParams("secretNames", "x"), good, failure.InvalidParameters, []string{`"secretNames": is not a parameter; did you mean "secretName"?`}},
		{"unknown parameter in another case", plainParams("TransitMOUNT", "x"), good, failure.InvalidParameters, []string{`did you mean "transitMount"?`}},
		{"TLS parameter", plainParams("vaultSkipTLSVerify", "true"), good, failure.InvalidParameters, []string{`"vaultSkipTLSVerify"`, "set by the operator"}},
		{"auth mount that is not allowed", plainParams("vaultAuthMountPath", "cert"), good, failure.InvalidParameters, []string{`vaultAuthMountPath: "cert" is not an auth mount that the provider allows`, "--vault-allowed-auth-mounts"}},
		{"auth mount below an allowed one", plainParams("vaultAuthMountPath", "jwt/cert"), good, failure.InvalidParameters, []string{"--vault-allowed-auth-mounts"}},
		{"Vault namespace that is not allowed", plainParams("vaultNamespace", "team/"), good, failure.InvalidParameters, []string{`vaultNamespace: "team/" is not a Vault namespace that the provider allows`, "--vault-allowed-namespaces"}},
		{"address that is not allowed", plainParams("vaultAddress", "https://evil.example"), good, failure.InvalidParameters, []string{"vaultAddress: ", "--vault-allowed-addresses"}},
		{"path in roleName", plainParams("roleName", "../x"), good, failure.InvalidParameters, []string{"roleName: "}},
		{"path in transitKey", plainParams("transitKey", "a/../b"), good, failure.InvalidParameters, []string{"transitKey: "}},
		{"path in transitMount", plainParams("transitMount", "a/../../sys"), good, failure.InvalidParameters, []string{"transitMount: "}},
		{"path in vaultAuthMountPath", plainParams("vaultAuthMountPath", "a?b"), good, failure.InvalidParameters, []string{"vaultAuthMountPath: "}},
		{"path in vaultNamespace", plainParams("vaultNamespace", "/a//b/"), good, failure.InvalidParameters, []string{"vaultNamespace: "}},
		{"path in secretName", plainParams("secretName", "../pods"), good, failure.InvalidParameters, []string{"secretName: "}},
		{"no namespace", plainParams(keyPodNamespace, ""), good, failure.InvalidParameters, []string{"pod.namespace", "podInfoOnMount"}},
		{"namespace that is none", plainParams(keyPodNamespace, "a/b"), good, failure.InvalidParameters, []string{"pod.namespace"}},
		{"tokens that are none", plainParams(keyTokens, `["`+canaryToken+`"]`), good, failure.InvalidParameters, []string{"serviceAccount.tokens: is not"}},

		{"objects that are a mapping", plainParams("objects", "array: [x]"), good, failure.InvalidParameters, []string{"objects: is a mapping and not a list"}},
		{"objects that are a text", plainParams("objects", "x"), good, failure.InvalidParameters, []string{"objects: is a single value and not a list"}},
		{"objects that are not YAML", plainParams("objects", "- {"), good, failure.InvalidParameters, []string{"objects: is not YAML"}},
		{"objects that are two documents", plainParams("objects", "- {objectName: a}\n---\n- {objectName: b}"), good, failure.InvalidParameters, []string{"objects: is more than one YAML document"}},
		{"objects without items", plainParams("objects", "[]"), good, failure.InvalidParameters, []string{"objects: is an empty list"}},
		{"objects that are comments", plainParams("objects", "# later"), good, failure.InvalidParameters, []string{"objects: has nothing but comments"}},
		{"too many objects", plainParams("objects", strings.Repeat("- {objectName: a}\n", maxObjects+1)), good, failure.InvalidParameters, []string{"objects: has 2001 items"}},
		{"item that is a text", plainParams("objects", "- a\n- {objectName: b}"), good, failure.InvalidParameters, []string{"objects[0]: is a single value"}},
		{"unknown field", plainParams("objects", "- {objectName: a, filepermission: '0400'}"), good, failure.InvalidParameters, []string{"objects[0].filepermission: is not a field; there are objectName"}},
		{"duplicate field", plainParams("objects", "- {objectName: a}\n- {objectName: b, secretKey: x, secretKey: y}"), good, failure.InvalidParameters, []string{"objects[1].secretKey: is there twice"}},
		{"alias", plainParams("objects", "- &a {objectName: a}\n- *a"), good, failure.InvalidParameters, []string{"objects[1]: is an alias"}},
		{"field that is a list", plainParams("objects", "- {objectName: [a]}"), good, failure.InvalidParameters, []string{"objects[0].objectName: is a list"}},
		{"field that is null", plainParams("objects", "- {objectName: a, field: }"), good, failure.InvalidParameters, []string{"objects[0].field: is null"}},
		{"two objects on one path", plainParams("objects", "- {objectName: a}\n- {objectName: b}\n- {objectName: a, secretKey: x}"), good, failure.InvalidParameters, []string{`objects[2].objectName: "a" is the path of objects[0] too`}},
		{"path nested under a file", plainParams("objects", "- {objectName: a}\n- {objectName: a/b, secretKey: x}"), good, failure.InvalidParameters, []string{`objects[1].objectName: "a/b" is under "a", which is the file of objects[0]`}},
		{"file that is a folder", plainParams("objects", "- {objectName: a/b/c, secretKey: x}\n- {objectName: a/b, secretKey: x}"), good, failure.InvalidParameters, []string{`objects[1].objectName: "a/b" is a folder`}},
		{"path of .", plainParams("objects", "- {objectName: ., secretKey: x}"), good, failure.InvalidParameters, []string{`objects[0].objectName: "." is the volume itself`}},
		{"path of ..", plainParams("objects", "- {objectName: .., secretKey: x}"), good, failure.InvalidParameters, []string{`objects[0].objectName: ".." has ".."`}},
		{"path with ..", plainParams("objects", "- {objectName: a/../../b, secretKey: x}"), good, failure.InvalidParameters, []string{`objects[0].objectName: "a/../../b" has ".." in it`}},
		{"path that begins with ..", plainParams("objects", "- {objectName: ..data, secretKey: x}"), good, failure.InvalidParameters, []string{`objects[0].objectName: "..data" begins with ".."`}},
		{"absolute path", plainParams("objects", "- {objectName: /etc/passwd, secretKey: x}"), good, failure.InvalidParameters, []string{`objects[0].objectName: "/etc/passwd" is absolute`}},
		{"path with a zero byte", plainParams("objects", `- {objectName: "a\x00b", secretKey: x}`), good, failure.InvalidParameters, []string{`objects[0].objectName: "a\x00b" has a zero byte`}},
		{"path that is not clean", plainParams("objects", "- {objectName: a//b, secretKey: x}"), good, failure.InvalidParameters, []string{`is not clean; write "a/b"`}},
		{"path with a long part", plainParams("objects", "- {objectName: "+strings.Repeat("a", 256)+", secretKey: x}"), good, failure.InvalidParameters, []string{"longer than 255 bytes"}},
		{"path that is long", plainParams("objects", "- {objectName: "+strings.Repeat("a/", 2000)+"a, secretKey: x}"), good, failure.InvalidParameters, []string{"is too long"}},
		{"path without secretKey", plainParams("objects", "- {objectName: a/b}"), good, failure.InvalidParameters, []string{"objects[0].secretKey: is required"}},
		{"secretKey that is none", plainParams("objects", "- {objectName: a, secretKey: a/b}"), good, failure.InvalidParameters, []string{`objects[0].secretKey: "a/b" is not the name of an entry`}},
		{"filePermission of 0888", plainParams("objects", "- {objectName: a}\n- {objectName: b}\n- {objectName: c, filePermission: '0888'}"), good, failure.InvalidParameters, []string{`objects[2].filePermission: "0888" is not an octal mode`}},
		{"filePermission of 01777", plainParams("objects", "- {objectName: a, filePermission: '01777'}"), good, failure.InvalidParameters, []string{"objects[0].filePermission: "}},
		{"filePermission without a zero", plainParams("objects", "- {objectName: a, filePermission: 440}"), good, failure.InvalidParameters, []string{"objects[0].filePermission: "}},
		{"filePermission that is empty", plainParams("objects", "- {objectName: a, filePermission: ''}"), good, failure.InvalidParameters, []string{"objects[0].filePermission: "}},
		{"unknown encoding", plainParams("objects", "- {objectName: a, encoding: rot13}"), good, failure.InvalidParameters, []string{`objects[0].encoding: "rot13" is not one of utf-8, base64, hex`}},
		{"empty part of a field", plainParams("objects", "- {objectName: a, field: a..b}"), good, failure.InvalidParameters, []string{"objects[0].field: ", "empty part"}},

		{"entry that is missing", plainParams("objects", "- {objectName: y}\n- {objectName: x}\n- {objectName: z}"), good, failure.EntryNotFound,
			[]string{"Secret demo/matrix", `no entry "y", "z"`, `it has "x"`, "nodePublishSecretRef names the same Secret"}},
		{"entry that is empty", plainParams(), map[string]string{"x": "", "y": canaryCiphertext}, failure.InvalidCiphertext, []string{`entry "x" is empty`}},
		{"entry of plaintext", plainParams(), map[string]string{"x": canaryPlaintext}, failure.InvalidCiphertext, []string{`entry "x" is not ciphertext`, "may be plaintext"}},
		{"entry that is not base64", plainParams(), map[string]string{"x": "vault:v1:***" + canaryPlaintext}, failure.InvalidCiphertext, []string{`entry "x" is damaged ciphertext`, "not base64"}},
		{"entry without a version", plainParams(), map[string]string{"x": "vault:" + canaryPlaintext}, failure.InvalidCiphertext, []string{`entry "x" is not ciphertext`}},
		{"several bad entries", plainParams(), map[string]string{"x": "", "y": canaryPlaintext, "z": "vault:v0:" + canaryPlaintext}, failure.InvalidCiphertext, []string{`entry "x"`, `entry "y"`, `entry "z"`}},

		{"no token", plainParams(keyTokens, ""), good, failure.TokenMissing, []string{`no service account token for audience "vault" (it sent none)`, "spec.tokenRequests", "- audience: vault"}},
		{"no token of that audience", plainParams("audience", "team"), good, failure.TokenMissing, []string{`audience "team"`, `it sent those of "vault"`, "- audience: team"}},
		{"no token of that audience among several", plainParams(keyTokens, tokensJSON(map[string]token{"": {canaryToken, time.Time{}}, "x": {canaryToken, time.Time{}}})), good,
			failure.TokenMissing, []string{`it sent those of "", "x"`}},
		{"expired token", plainParams(keyTokens, tokensJSON(map[string]token{"vault": {canaryToken, time.Now().Add(-time.Minute)}})), good,
			failure.TokenExpired, []string{`audience "vault" expired at `, "clock of the node"}},
		{"token that is none", plainParams(keyTokens, tokensJSON(map[string]token{"vault": {"s3cret", time.Time{}}})), good,
			failure.TokenInvalid, []string{`the token of audience "vault" is not a Kubernetes service account token`, "nothing but the driver connects to"}},
		{"token that is bound to no pod", plainParams(keyTokens, tokensJSON(map[string]token{"vault": {forged(without(demoClaims, "pod")), time.Time{}}})), good,
			failure.TokenMismatch, []string{"belongs to another pod", "no claim pod.name (it is bound to no pod)"}},
		{"token of another pod", plainParams(keyPodName, "app-1"), good, failure.TokenMismatch, []string{`its claim pod.name is not the csi.storage.k8s.io/pod.name "app-1" of the request`}},
		{"token of an earlier pod of that name", plainParams(keyPodUID, "uid-1"), good, failure.TokenMismatch, []string{`its claim pod.uid is not the csi.storage.k8s.io/pod.uid "uid-1"`}},
		{"token of another account", plainParams(keyServiceAccount, "other"), good, failure.TokenMismatch, []string{`its claim serviceaccount.name is not the csi.storage.k8s.io/serviceAccount.name "other"`}},
		{"token of another namespace", plainParams(keyPodNamespace, "other"), good, failure.TokenMismatch, []string{`its claim namespace is not the csi.storage.k8s.io/pod.namespace "other"`}},
		{"token that says nothing of its end", plainParams(keyTokens, tokensJSON(map[string]token{"vault": {forged(without(demoClaims, "exp")), time.Now().Add(time.Hour)}})), good,
			failure.TokenExpired, []string{"expired at"}},
		{"no pod information", plainParams(keyPodName, "", keyPodUID, "", keyServiceAccount, ""), good, failure.TokenMismatch, []string{"podInfoOnMount: true"}},
		{"no ciphertext, no token to read it", plainParams(), nil, failure.CiphertextMissing, []string{"nodePublishSecretRef: {name: matrix}", "- audience: ''", "`get`"}},
		{"no ciphertext, no API server", plainParams(keyTokens, tokensJSON(map[string]token{"": {canaryToken, time.Time{}}, "vault": {canaryToken, time.Time{}}})), nil,
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
		for _, text := range []string{"x" + canaryPlaintext, `[]`, `{"a": 1}`, `{"roleName": {"a": "` + canaryPlaintext + `"}}`, `{"a": null}`} {
			_, err := s.Mount(t.Context(), &v1alpha1.MountRequest{Attributes: text, Secrets: "null"})
			wantError(t, err, failure.InvalidRequest, "attributes")
			clean(t, canaries, err.Error(), s.log.String())
		}
	})
	t.Run("secrets", func(t *testing.T) {
		for _, text := range []string{"x" + canaryPlaintext, `["` + canaryPlaintext + `"]`, `{"a": ["` + canaryPlaintext + `"]}`} {
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
	params := plainParams("scope", strings.Repeat("s", maxParameter))
	for i := range 100 {
		params[strings.Repeat("n", 9000+i)] = "x"
	}
	_, err := s.Mount(t.Context(), mountRequest(params, nil))
	wantError(t, err, failure.InvalidParameters, "scope: unknown scope")
	if n := len(err.Error()); n > 2*failure.MaxMessage {
		t.Errorf("the message has %d bytes", n)
	}
}
