package provider

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// Texts that must not occur in messages and logs.
const (
	canaryPlaintext  = "c4nary-plaintext"
	canaryCiphertext = "vault:v1:Y2FuYXJ5LWNpcGhlcnRleHQtdGhhdC1pcy1sb25nLWVub3VnaA=="
	canaryVaultToken = "hvs.CAESIJc4naryc4naryc4nary"
)

// canaryToken has the claims of pod app-0 in namespace demo, and a signature that is
// not valid.
var canaryToken = forged(demoClaims)

// demoClaims returns the claims of pod app-0 in namespace demo, with service account app.
var demoClaims = map[string]any{"exp": time.Now().Add(time.Hour).Unix(), "kubernetes.io": map[string]any{
	"namespace": "demo", "serviceaccount": map[string]any{"name": "app", "uid": "account-uid"},
	"pod": map[string]any{"name": "app-0", "uid": "uid-0"},
}}

var canaries = []string{canaryPlaintext, canaryToken, canaryCiphertext, "Y2FuYXJ5", canaryVaultToken}

// plainParams returns valid parameters, without a particular Vault.
func plainParams(more ...string) map[string]string {
	e := &env{namespace: "demo", key: ciphertext.Key{Mount: "transit", Name: "matrix"}, jwt: canaryToken}
	p := merged(e.params(), more...)
	maps.DeleteFunc(p, func(_, value string) bool { return value == "" })
	return p
}

// requestFailures returns the requests that are rejected before anything is sent to
// Vault.
func (e *failureEnv) requestFailures(t *testing.T) []failureTest {
	vault := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("request to Vault: %s", r.URL.Path)
	}))
	t.Cleanup(vault.Close)
	good := map[string]string{"x": canaryCiphertext}
	request := func(entries map[string]string, changes ...string) *v1alpha1.MountRequest {
		return mountRequest(plainParams(changes...), entries)
	}
	entry := func(text string) *v1alpha1.MountRequest { return request(map[string]string{"x": text}) }
	vaultToken := func(jwt string, expires time.Time) *v1alpha1.MountRequest {
		return request(good, class.AttributeTokens, tokensJSON(map[string]token{"vault": {jwt, expires}}))
	}
	inSecrets := func(tokens string) *v1alpha1.MountRequest {
		return request(merged(good, class.AttributeTokens, tokens), class.AttributeTokens, "")
	}
	later := time.Now().Add(time.Hour)
	expiredClaims := maps.Clone(demoClaims)
	expiredClaims["exp"] = 1
	expired := tokensJSON(map[string]token{"vault": {canaryToken, time.Now().Add(-time.Minute)}})
	unsigned := plainParams()[class.AttributeTokens]

	tests := []failureTest{
		fails("every parameter", failure.InvalidParameters,
			request(good, "roleName", "", "secretName", "", "transitKey", " ", "scope", "wide", "rolName", "x",
				"objects", "- {objectName: ., filePermission: 0888}\n- {objectNam: a}"),
			"SecretProviderClass demo/matrix", "roleName: Required value", "secretName: Required value",
			"transitKey: Required value", "scope: Unsupported value", "did you mean roleName?",
			"objects[0].objectName: ", "objects[0].filePermission: ", "objects[1].objectNam: Forbidden",
			"objects[1].objectName: Required value"),
		fails("no namespace", failure.InvalidParameters, request(good, class.AttributePodNamespace, ""),
			"pod.namespace", "podInfoOnMount"),
		fails("namespace that is none", failure.InvalidParameters, request(good, class.AttributePodNamespace, "a/b"),
			"pod.namespace"),
		fails("secrets in every parameter", failure.InvalidParameters,
			request(good, "roleName", "", class.AttributePodNamespace, "", canaryCiphertext, canaryToken,
				"vaultTLSCert", canaryToken, "transitKey", canaryCiphertext, "scope", canaryToken,
				"objects", "- {secretKey: x}\n- {objectName: a, objectName: b}\n- {objectName: ["+canaryCiphertext+"], "+
					canaryToken+": x}\n- {objectName: c, encoding: "+canaryToken+"}")),
		fails("objects that are ciphertext", failure.InvalidParameters, request(good, "objects", canaryCiphertext)),
		fails("names that are tokens", failure.InvalidParameters, request(good, class.AttributeClass, canaryToken,
			class.AttributePodName, canaryToken, class.AttributeAccount, canaryToken)),

		fails("entry that is missing", failure.EntryNotFound,
			request(good, "objects", "- {objectName: y}\n- {objectName: x}\n- {objectName: z}"),
			"Secret demo/matrix", `no entry "y", "z"`, `it has "x"`, "nodePublishSecretRef names the same Secret"),
		fails("entry that is empty", failure.InvalidCiphertext,
			request(map[string]string{"x": "", "y": canaryCiphertext}), `entry "x" is empty`),
		fails("entry of plaintext", failure.InvalidCiphertext, entry(canaryPlaintext),
			`entry "x" is not ciphertext`, "may be plaintext"),
		fails("entry with more behind it", failure.InvalidCiphertext, entry(canaryCiphertext+" "+canaryPlaintext)),
		fails("entry that is not base64", failure.InvalidCiphertext, entry("vault:v1:***"+canaryPlaintext),
			`entry "x" is damaged ciphertext`, "not base64"),
		fails("entry without a version", failure.InvalidCiphertext, entry("vault:"+canaryPlaintext),
			`entry "x" is not ciphertext`),
		fails("several bad entries", failure.InvalidCiphertext,
			request(map[string]string{"x": "", "y": canaryPlaintext, "z": "vault:v0:" + canaryPlaintext}),
			`entry "x"`, `entry "y"`, `entry "z"`),

		fails("no token", failure.TokenMissing, request(good, class.AttributeTokens, ""),
			`no service account token for audience "vault" (it sent none)`, "spec.tokenRequests", "- audience: vault"),
		fails("no token of that audience", failure.TokenMissing, request(good, "audience", "team"),
			`audience "team"`, `it sent those of "vault"`, "- audience: team"),
		fails("no token of that audience among several", failure.TokenMissing,
			request(good, class.AttributeTokens,
				tokensJSON(map[string]token{"": {canaryToken, time.Time{}}, "x": {canaryToken, time.Time{}}})),
			`it sent those of "", "x"`),
		fails("no token of that audience in the secrets", failure.TokenMissing,
			inSecrets(tokensJSON(map[string]token{"other": {canaryToken, time.Time{}}})), `it sent those of "other"`),
		fails("expired token", failure.TokenExpired, request(good, class.AttributeTokens, expired),
			`audience "vault" expired at `, "clock of the node"),
		fails("expired token in the secrets", failure.TokenExpired, inSecrets(expired), "expired"),
		fails("token that says nothing of its end", failure.TokenExpired,
			vaultToken(forged(without(demoClaims, "exp")), later), "expired at"),
		fails("token that says that it is expired", failure.TokenExpired,
			vaultToken(forged(expiredClaims), later)),
		fails("tokens that are none", failure.InvalidParameters,
			request(good, class.AttributeTokens, `["`+canaryToken+`"]`), class.AttributeTokens+": is not the JSON object"),
		fails("tokens that are none, and good ones in the secrets", failure.InvalidParameters,
			request(merged(good, class.AttributeTokens, unsigned), class.AttributeTokens, canaryPlaintext),
			class.AttributeTokens+": is not the JSON object"),
		fails("tokens in the secrets that are none", failure.InvalidParameters, inSecrets(canaryPlaintext),
			class.AttributeTokens+": is not the JSON object"),
		fails("object that asks for the tokens", failure.InvalidParameters,
			request(merged(good, class.AttributeTokens, unsigned), class.AttributeTokens, "",
				"objects", "- {objectName: stolen, secretKey: "+class.AttributeTokens+"}")),
		fails("token that is none", failure.TokenInvalid, vaultToken("s3cret", time.Time{}),
			`the token of audience "vault" is not a Kubernetes service account token`, "nothing but the driver connects to"),
		fails("token that is bound to no pod", failure.TokenMismatch,
			vaultToken(forged(without(demoClaims, "pod")), time.Time{}),
			"belongs to another pod", "no claim pod.name (it is bound to no pod)"),
		fails("token of another pod", failure.TokenMismatch, request(good, class.AttributePodName, "app-1"),
			`its claim pod.name is not the csi.storage.k8s.io/pod.name "app-1" of the request`),
		fails("token of another pod in the secrets", failure.TokenMismatch,
			request(merged(good, class.AttributeTokens, unsigned), class.AttributeTokens, "",
				class.AttributePodName, "app-1", class.AttributePodUID, "uid-1"),
			"belongs to another pod", "pod.name", "pod.uid"),
		fails("token of an earlier pod of that name", failure.TokenMismatch, request(good, class.AttributePodUID, "uid-1"),
			`its claim pod.uid is not the csi.storage.k8s.io/pod.uid "uid-1"`),
		fails("token of another account", failure.TokenMismatch, request(good, class.AttributeAccount, "other"),
			`its claim serviceaccount.name is not the csi.storage.k8s.io/serviceAccount.name "other"`),
		fails("token of another namespace", failure.TokenMismatch, request(good, class.AttributePodNamespace, "other"),
			`its claim namespace is not the csi.storage.k8s.io/pod.namespace "other"`),
		fails("no pod information", failure.TokenMismatch, request(good, class.AttributePodName, "",
			class.AttributePodUID, "", class.AttributeAccount, ""), "podInfoOnMount: true"),

		fails("no ciphertext, no token to read it", failure.CiphertextMissing, request(nil),
			"nodePublishSecretRef: {name: matrix}", "- audience: ''", "`get`"),
		// Without nodePublishSecretRef the secrets may contain only tokens, which is no Secret.
		fails("no ciphertext beside tokens in the secrets", failure.CiphertextMissing,
			request(map[string]string{class.AttributeTokens: unsigned}, class.AttributeTokens, ""),
			"reading Secret demo/matrix", "neither the Secret nor a token", "nodePublishSecretRef: {name: matrix}"),
		fails("no ciphertext, no API server", failure.CiphertextMissing, request(nil, class.AttributeTokens,
			tokensJSON(map[string]token{"": {canaryToken, time.Time{}}, "vault": {canaryToken, time.Time{}}})),
			"the provider has no API server", "nodePublishSecretRef: {name: matrix}"),

		fails("request that is too large", failure.RequestTooLarge,
			entry(strings.Repeat(canaryPlaintext, maxRequest/len(canaryPlaintext)+1))),
		fails("node that is busy", failure.NodeBusy, entry(strings.Repeat("x", 64<<10))).
			breaking(func(s *served) { s.provider.requests = fullPool(t) }),
	}
	for _, name := range []string{"..data", "a/b", ".", "..", "", "a b"} {
		tests = append(tests, fails(fmt.Sprintf("entry name %q", name), failure.InvalidEntryName,
			request(map[string]string{name: canaryCiphertext}), "every entry of Secret demo/matrix",
			"must be a name of letters"))
	}
	for i, text := range []string{"x" + canaryPlaintext, `[]`, `{"a": 1}`, `{"a": null}`,
		`{"roleName": {"` + canaryPlaintext + `": "` + canaryToken + `"}}`} {
		tests = append(tests, fails(fmt.Sprint("attributes ", i), failure.InvalidRequest,
			&v1alpha1.MountRequest{Attributes: text, Secrets: "null"}, "attributes"))
	}
	for i, text := range []string{"x" + canaryPlaintext + canaryCiphertext, `["` + canaryPlaintext + `"]`,
		`{"a": ["` + canaryPlaintext + `"]}`} {
		tests = append(tests, fails(fmt.Sprint("secrets ", i), failure.InvalidRequest,
			&v1alpha1.MountRequest{Attributes: toJSON(plainParams()), Secrets: text}, "secrets"))
	}
	for i := range tests {
		tests[i] = tests[i].at(vault.URL)
	}
	return tests
}

// without returns the claims except one.
func without(claims map[string]any, name string) map[string]any {
	private := maps.Clone(claims["kubernetes.io"].(map[string]any))
	delete(private, name)
	claims = maps.Clone(claims)
	claims["kubernetes.io"] = private
	delete(claims, name)
	return claims
}

// A long name causes neither much work nor a long message.
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
