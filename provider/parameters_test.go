package provider

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// accessible makes cmp look at this package's own structs.
var accessible = cmp.AllowUnexported(request{}, pod{}, object{})

func TestParseDefaults(t *testing.T) {
	p, err := New(Config{
		Vault: transit.Config{Address: "https://vault.example:8200/"}, AllowedAddresses: []string{"https://second.example/"},
		VaultNamespace: "team", AuthMount: "k8s", Audience: "aud", VersionKey: make([]byte, versionKeySize),
		AllowedAuthMounts: []string{"/x/y/"}, AllowedNamespaces: []string{"n/m/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	params := map[string]string{
		"roleName": "r", "secretName": "s", "transitKey": "k", "objects": "", "scope": "", keyClass: "c", keyProvider: "secretmanager",
		keyPodNamespace: "ns", keyPodName: "p", keyPodUID: "u", keyServiceAccount: "sa", kubeletPrefix + "new.in.kubernetes": "x",
	}
	want := request{
		pod: pod{"ns", "p", "u", "sa"}, class: "c", role: "r", secret: "s", key: transit.Key{Mount: "transit", Name: "k"}, scope: ciphertext.Strict,
		authMount: "k8s", audience: "aud", vaultNamespace: "team", vaultAddress: "https://vault.example:8200", target: "/t",
		attributes: params,
	}
	got, failed := p.parse(&v1alpha1.MountRequest{Attributes: toJSON(params), Secrets: "null", TargetPath: "/t"})
	if failed != nil {
		t.Fatal(failed)
	}
	if diff := cmp.Diff(&want, got, accessible); diff != "" {
		t.Error(diff)
	}

	params = merged(params, "transitMount", "a/b", "scope", "cluster", "vaultAuthMountPath", "x/y", "audience", "z", "vaultNamespace", "n/m/",
		"vaultAddress", "https://second.example", "objects", "- {objectName: a/b, secretKey: c, field: 'd.e', encoding: hex, filePermission: 0400}\n- objectName: f")
	want.key.Mount, want.scope, want.authMount, want.audience = "a/b", ciphertext.Cluster, "x/y", "z"
	want.vaultNamespace, want.vaultAddress = "n/m", "https://second.example"
	want.objects = []object{{"a/b", "c", []string{"d", "e"}, hexed, 0o400}, {"f", "f", nil, "", 0o644}}
	want.handed = map[string][]byte{"entry": []byte("v")}
	want.tokens = tokens{"x": {Token: "t"}}
	want.attributes = params
	secrets := map[string]string{"entry": "v", keyTokens: `{"x": {"token": "t"}}`}
	got, failed = p.parse(&v1alpha1.MountRequest{Attributes: toJSON(params), Secrets: toJSON(secrets), TargetPath: "/t"})
	if failed != nil {
		t.Fatal(failed)
	}
	if diff := cmp.Diff(&want, got, accessible); diff != "" {
		t.Error(diff)
	}

	// Attributes come first.
	params[keyTokens] = `{"y": {"token": "u"}}`
	got, _ = p.parse(&v1alpha1.MountRequest{Attributes: toJSON(params), Secrets: toJSON(secrets)})
	if _, ok := got.attributes[keyTokens]; ok {
		t.Error("the tokens are among what mounts are compared by")
	}
	if diff := cmp.Diff(tokens{"y": {Token: "u"}}, got.tokens); diff != "" {
		t.Error(diff)
	}
}

func TestNewRefuses(t *testing.T) {
	_, err := New(Config{Vault: transit.Config{Address: "vault"}, AllowedAddresses: []string{"ftp://x"}, MountTimeout: -1, VersionKey: []byte("short")})
	if err == nil {
		t.Fatal("no error")
	}
	wantTexts(t, err.Error(), "mount timeout", "version key has 5 bytes", `"vault" is not`, `"ftp://x" is not`)
}

// With a configuration a class means the same to whoever checks it as to a Mount.
func TestParseClassConfigured(t *testing.T) {
	config := Config{
		Vault: transit.Config{Address: "https://vault.example:8200/"}, AllowedAddresses: []string{"https://second.example/"},
		VaultNamespace: "team", Audience: "aud", AllowedAuthMounts: []string{"x/y/"}, AllowedNamespaces: []string{"/n/m"},
	}
	params := map[string]string{"roleName": "r", "secretName": "s", "transitKey": "k", keyClass: "c"}
	want := Class{
		Role: "r", Secret: "s", Key: transit.Key{Mount: "transit", Name: "k"}, Scope: ciphertext.Strict,
		AuthMount: DefaultAuthMount, Audience: "aud", VaultNamespace: "team", VaultAddress: "https://vault.example:8200",
	}
	got, problems := ParseClass(&config, params)
	if diff := cmp.Diff(want, got); diff != "" || problems != nil {
		t.Error(problems, diff)
	}
	params = merged(params, "transitMount", "a/b", "scope", "none", "vaultAuthMountPath", "x/y", "audience", "z", "vaultNamespace", "n/m/",
		"vaultAddress", "https://second.example", "objects", "- {objectName: a, secretKey: c}\n- {objectName: b, secretKey: c}\n- objectName: a2")
	want = Class{
		Role: "r", Secret: "s", Key: transit.Key{Mount: "a/b", Name: "k"}, Scope: ciphertext.None, Entries: []string{"c", "c", "a2"},
		AuthMount: "x/y", Audience: "z", VaultNamespace: "n/m", VaultAddress: "https://second.example",
	}
	got, problems = ParseClass(&config, params)
	if diff := cmp.Diff(want, got); diff != "" || problems != nil {
		t.Error(problems, diff)
	}
	_, problems = ParseClass(&config, map[string]string{"rollName": "r", "secretName": "s", "transitKey": "a/b", "vaultAddress": "https://third.example",
		"vaultAuthMountPath": "x", "vaultNamespace": "n"})
	for _, words := range []string{`roleName: is required`, `"rollName": is not a parameter; did you mean "roleName"?`, `transitKey: "a/b" has a slash`, "--vault-allowed-addresses", "--vault-allowed-auth-mounts", "--vault-allowed-namespaces"} {
		if !strings.Contains(strings.Join(problems, "\n"), words) {
			t.Errorf("%q is not in %q", words, problems)
		}
	}
}
