package provider

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestParseClass(t *testing.T) {
	got, problems := ParseClass(nil, map[string]string{"roleName": "r", "secretName": "s", "transitKey": "k"})
	want := Class{Role: "r", Secret: "s", Key: transit.Key{Mount: "transit", Name: "k"}, Scope: ciphertext.Strict}
	if diff := cmp.Diff(want, got); diff != "" || len(problems) > 0 {
		t.Errorf("%q\n%s", problems, diff)
	}
	got, problems = ParseClass(nil, map[string]string{"roleName": "r", "secretName": "s", "transitKey": "k", "transitMount": "a/b", "scope": "none",
		"vaultAddress": "https://of.whatever.provider/", "objects": "- {objectName: a/b, secretKey: c}\n- objectName: f"})
	want.Key.Mount, want.Scope, want.Entries = "a/b", ciphertext.None, []string{"c", "f"}
	want.VaultAddress = "https://of.whatever.provider"
	if diff := cmp.Diff(want, got); diff != "" || len(problems) > 0 {
		t.Errorf("%q\n%s", problems, diff)
	}
}

// What is wrong is said in the words of the mount.
func TestParseClassProblems(t *testing.T) {
	bad := map[string]string{"secretName": "S", "transitKey": "k", "scope": "galaxy", "roleNam": "r", "objects": "- {objectName: a, filePermission: 440}\n- {objectName: a}"}
	_, problems := ParseClass(nil, bad)
	if len(problems) != 6 {
		t.Errorf("%d problems: %q", len(problems), problems)
	}
	_, failed := plainProvider(t).parse(&v1alpha1.MountRequest{Attributes: toJSON(merged(bad, keyPodNamespace, "ns"))})
	if failed == nil || failed.Cause != failure.List(problems) {
		t.Errorf("a mount says\n%v\nand the class\n%s", failed, failure.List(problems))
	}
	_, problems = ParseClass(nil, map[string]string{"roleName": "r", "secretName": "s", "transitKey": "k", "vaultAddress": "vault:8200"})
	if len(problems) != 1 {
		t.Errorf("problems: %q", problems)
	}
}
