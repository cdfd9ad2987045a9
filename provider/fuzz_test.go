package provider

import (
	"log/slog"
	"path"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"sigs.k8s.io/secrets-store-csi-driver/pkg/util/fileutil"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/transit"
)

func plainProvider(t testing.TB) *Provider {
	t.Helper()
	p, err := New(Config{
		Vault: transit.Config{Address: "http://127.0.0.1:1"}, AllowedAuthMounts: []string{"jwt", "other"},
		AllowedNamespaces: []string{"a/b", "other"}, VersionKey: make([]byte, versionKeySize), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// FuzzParse: whatever the driver sends is a valid request or an InvalidArgument
// in three parts, and what is valid cannot leave its place in Vault's paths.
func FuzzParse(f *testing.F) {
	f.Add(toJSON(plainParams()), `{"x": "y"}`)
	f.Add(toJSON(plainParams("objects", "- {objectName: a, filePermission: 0400}", "scope", "none", "vaultNamespace", "a/b/")), "null")
	f.Add(`{"a": 1}`, `[]`)
	f.Add(`{"csi.storage.k8s.io/serviceAccount.tokens": "{}"}`, ``)
	f.Add(toJSON(plainParams("transitMount", "../x", "roleNam", "x")), `{"csi.storage.k8s.io/serviceAccount.tokens": "null"}`)
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
		for _, s := range []string{r.role, r.key.Name} {
			if s == "" || strings.ContainsAny(s, "/?#%") {
				t.Errorf("name %q", s)
			}
		}
		for _, s := range []string{r.key.Mount, r.authMount} {
			if path.Clean("/"+s) != "/"+s {
				t.Errorf("path %q", s)
			}
		}
		if strings.Contains(r.secret+r.pod.namespace, "/") || r.secret == "" || r.pod.namespace == "" {
			t.Errorf("Secret %q in %q", r.secret, r.pod.namespace)
		}
	})
}

// FuzzObjects: what is taken for valid, the driver writes: it has no two files
// on one path, and every path passes the driver's own check.
func FuzzObjects(f *testing.F) {
	for _, seed := range []string{
		"- {objectName: a}", "- objectName: a/b\n  secretKey: x\n- objectName: a", "[]", "- *a", "- &a {objectName: *a}", "a: b",
		"- {objectName: ../x, secretKey: x}", "- {objectName: './x', secretKey: x, filePermission: '0888'}", "- {objectName: a, objectName: b}",
		"- {objectName: ..x, secretKey: x}", "- {? [a] : b}", "--- \n- {objectName: a}\n--- \n", "- !!binary aGk=", "- {objectName: a, field: 'b..c'}", "\t",
		"- {a: ,a: ,a: }", "[&a ,&a ]", "[[],[]]", "-\n-\n", "%TAG !a! x\n--- a", "- {objectName: a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a, secretKey: x}",
		"#\n- a\n#\n- b", "- {objectName: a, field: a.a.a.a.a.a.a.a.a.a}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		objects, problems := parseObjects(text, "/var/lib/kubelet")
		if len(problems) > 0 {
			for _, problem := range problems {
				if !strings.HasPrefix(problem, ": ") && !strings.HasPrefix(problem, "[") {
					t.Errorf("problem %q has no path", problem)
				}
			}
			return
		}
		if len(objects) == 0 {
			t.Error("neither objects nor problems")
		}
		seen := map[string]bool{}
		for _, o := range objects {
			if seen[o.path] || o.path == "." || checkEntry(o.entry) != nil || o.mode&^0o777 != 0 {
				t.Errorf("object %+v", o)
			}
			seen[o.path] = true
			if err := fileutil.Validate([]*v1alpha1.File{{Path: o.path}}); err != nil {
				t.Errorf("the driver refuses %q: %v", o.path, err)
			}
		}
		for p := range seen {
			for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
				if seen[dir] {
					t.Errorf("%q is a file and a folder", dir)
				}
			}
		}
	})
}
