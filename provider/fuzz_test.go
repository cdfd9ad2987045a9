package provider

import (
	"log/slog"
	"path"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/transit"
)

func plainProvider(t testing.TB) *Provider {
	t.Helper()
	p, err := New(Config{
		Vault: transit.Config{Address: "http://127.0.0.1:1"}, AllowedAuthMounts: []string{"jwt", "other"},
		AllowedNamespaces: []string{"a/b", "other"}, VersionKey: make([]byte, versionKeySize),
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// FuzzParse verifies that any input is either a valid request or an InvalidArgument in
// three parts, and that valid input cannot escape its part of Vault's paths.
func FuzzParse(f *testing.F) {
	f.Add(toJSON(plainParams()), `{"x": "y"}`)
	f.Add(
		toJSON(plainParams("objects", "- {objectName: a, filePermission: 0400}", "scope", "none", "vaultNamespace",
			"a/b/")), "null")
	f.Add(`{"a": 1}`, `[]`)
	f.Add(`{"csi.storage.k8s.io/serviceAccount.tokens": "{}"}`, ``)
	f.Add(toJSON(plainParams("transitMount", "../x", "roleNam", "x")),
		`{"csi.storage.k8s.io/serviceAccount.tokens": "null"}`)
	f.Add(`{"csi.storage.k8s.io/serviceAccount.tokens": "{\"a\":{},\"b\":{}}"}`, `{"a":"","b":""}`)
	p := plainProvider(f)
	f.Fuzz(func(t *testing.T, attributes, secrets string) {
		r, failed := p.parse(&v1alpha1.MountRequest{Attributes: attributes, Secrets: secrets})
		if failed != nil {
			if failed.Reason.Code() != codes.InvalidArgument {
				t.Errorf("code %s", failed.Reason.Code())
			}
			if n := len(failure.Final(failed).Error()); n > 2*failure.MaxMessage {
				t.Errorf("a message of %d bytes", n)
			}
			return
		}
		for _, s := range []string{r.Role, r.Key.Name} {
			if s == "" || strings.ContainsAny(s, "/?#%") {
				t.Errorf("name %q", s)
			}
		}
		for _, s := range []string{r.Key.Mount, r.AuthMount} {
			if path.Clean("/"+s) != "/"+s {
				t.Errorf("path %q", s)
			}
		}
		if strings.Contains(r.Secret+r.pod.namespace, "/") || r.Secret == "" || r.pod.namespace == "" {
			t.Errorf("Secret %q in %q", r.Secret, r.pod.namespace)
		}
	})
}
