package retirescan

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// TestInUse has the ways in which a Secret that assumptions miss needs an old version.
func TestInUse(t *testing.T) {
	v := newVault("app", "other")
	v.keys[transitKey("plain")] = &fakeKey{latest: 10, minDecryption: 1}
	old := v.strict("app", 2, "shop", "db", "password")
	for name, secret := range map[string]*corev1.Secret{
		"label":           labeled(newSecret("shop", "db", map[string]string{"password": old}), "app"),
		"no label":        newSecret("shop", "db", map[string]string{"password": old}),
		"another label":   labeled(newSecret("shop", "db", map[string]string{"password": old}), "other"),
		"an unknown key":  labeled(newSecret("shop", "db", map[string]string{"password": old}), "none"),
		"in base64":       newSecret("shop", "db", map[string]string{"password": encode(old)}),
		"stored manifest": newSecret("shop", "copy", map[string]string{"f": manifestOf("", "db", "password", old)}),
		"of another namespace": newSecret("ops", "copy", map[string]string{
			"f": encode(manifestOf("shop", "db", "password", old))}),
		"namespace scope": newSecret("shop", "x", map[string]string{
			"y": v.encrypt(transitKey("app"), 3, ciphertext.Namespace.Context("shop", "", ""), nil)}),
		"cluster scope": newSecret("shop", "x", map[string]string{
			"y": v.encrypt(transitKey("app"), 3, ciphertext.Cluster.Context("", "", ""), nil)}),
		"Helm": helmSecret("shop", "web", 3, "deployed", "---\nkind: ConfigMap\n---\n"+
			manifestOf("", "db", "password", old)),
	} {
		t.Run(name, func(t *testing.T) {
			r := scan(t, &Scanner{Vault: v, Keys: v.retiring(nil)}, secret)
			if r.InUse[transitKey("app")].Count != 1 || r.MayRetire(transitKey("app")) {
				t.Errorf("the text was not found: %+v", r)
			}
			if !r.MayRetire(transitKey("other")) || r.Undecryptable.Count > 0 {
				t.Errorf("another key is blocked: %+v", r)
			}
		})
	}
}
