package provider

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/transit"
)

// accessible makes cmp compare unexported fields of this package's structs.
var accessible = cmp.AllowUnexported(request{}, pod{})

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
		"roleName": "r", "secretName": "s", "transitKey": "k", "objects": "", "scope": "", class.AttributeClass: "c",
		class.AttributeProvider:     "secretmanager",
		class.AttributePodNamespace: "ns", class.AttributePodName: "p", class.AttributePodUID: "u",
		class.AttributeAccount: "sa", class.KubeletPrefix + "new.in.kubernetes": "x",
	}
	want := request{
		pod: pod{"ns", "p", "u", "sa"}, className: "c", target: "/t",
		Class: class.Class{
			Role: "r", Secret: "s", Key: ciphertext.Key{Mount: "transit", Name: "k"}, Scope: ciphertext.Strict,
			AuthMount: "k8s", Audience: "aud", VaultNamespace: "team", VaultAddress: "https://vault.example:8200",
		},
		attributes: params,
	}
	got, failed := p.parse(&v1alpha1.MountRequest{Attributes: toJSON(params), Secrets: "null", TargetPath: "/t"})
	if failed != nil {
		t.Fatal(failed)
	}
	if diff := cmp.Diff(&want, got, accessible); diff != "" {
		t.Error(diff)
	}

	params = merged(params, "transitMount", "a/b", "scope", "cluster", "vaultAuthMountPath", "x/y", "audience", "z",
		"vaultNamespace", "n/m/",
		"vaultAddress", "https://second.example", "objects",
		"- {objectName: a/b, secretKey: c, field: 'd.e', encoding: hex, filePermission: 0400}\n- objectName: f")
	want.Key.Mount, want.Scope, want.AuthMount, want.Audience = "a/b", ciphertext.Cluster, "x/y", "z"
	want.VaultNamespace, want.VaultAddress = "n/m", "https://second.example"
	want.Objects = []class.Object{
		{Path: "a/b", Entry: "c", Field: []string{"d", "e"}, Encoding: class.Hex, Mode: 0o400},
		{Path: "f", Entry: "f", Mode: 0o644},
	}
	want.delivered = map[string][]byte{"entry": []byte("v")}
	want.tokens = tokens{"x": {Token: "t"}}
	want.attributes = params
	secrets := map[string]string{"entry": "v", class.AttributeTokens: `{"x": {"token": "t"}}`}
	got, failed = p.parse(&v1alpha1.MountRequest{Attributes: toJSON(params), Secrets: toJSON(secrets), TargetPath: "/t"})
	if failed != nil {
		t.Fatal(failed)
	}
	if diff := cmp.Diff(&want, got, accessible); diff != "" {
		t.Error(diff)
	}

	// Attributes take precedence.
	params[class.AttributeTokens] = `{"y": {"token": "u"}}`
	got, _ = p.parse(&v1alpha1.MountRequest{Attributes: toJSON(params), Secrets: toJSON(secrets)})
	if _, ok := got.attributes[class.AttributeTokens]; ok {
		t.Error("the key of a mount contains the tokens")
	}
	if diff := cmp.Diff(tokens{"y": {Token: "u"}}, got.tokens); diff != "" {
		t.Error(diff)
	}
}

func TestNewRefuses(t *testing.T) {
	_, err := New(Config{Vault: transit.Config{Address: "vault"}, AllowedAddresses: []string{"ftp://x"},
		MountTimeout: -1, VersionKey: []byte("short")})
	if err == nil {
		t.Fatal("no error")
	}
	wantTexts(t, err.Error(), "mount timeout", "version key has 5 bytes", `"vault" is not`, `"ftp://x" is not`)
}
