package chart

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// TestReuseValues upgrades a release of an older chart, which has few of the values, with --reuse-values. The values of
// the user stay, and the others have their defaults.
func TestReuseValues(t *testing.T) {
	c := newCluster(t)
	c.setDriver(t, validDriver(t))
	const namespace = "reuse"
	c.api.CreateNamespace(t, namespace)
	t.Cleanup(func() { c.Run(context.WithoutCancel(t.Context()), "uninstall", "reuse", "--namespace", namespace) })
	older := copyChart(t, c.Helm, "vault: {address: \"https://old.example:8200\"}\nprovider: {logLevel: info}\n")
	for _, remove := range []string{"templates", "values.schema.json", "defaults.json"} {
		if err := os.RemoveAll(filepath.Join(older.Chart, remove)); err != nil {
			t.Fatal(err)
		}
	}
	const values = "provider: {logLevel: debug}\n"
	if _, err := older.Apply(t.Context(), "install", "reuse", namespace, values); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Apply(t.Context(), "upgrade", "reuse", namespace, "", "--reuse-values"); err != nil {
		t.Fatal(err)
	}
	text, err := c.Run(t.Context(), "get", "manifest", "reuse", "--namespace", namespace)
	if err != nil {
		t.Fatal(err)
	}
	documents, err := split(text)
	if err != nil {
		t.Fatal(err)
	}
	r := decode(t, documents)
	hasArgs(t, r.providerPod(), "--log-level=debug",
		"--endpoint=/var/run/secrets-store-csi-providers/secretmanager.sock")
	if len(r.rotatorPod().Containers) != 1 || r.rotator.Spec.Schedule == "" {
		t.Errorf("the rotator is %+v", r.rotator.Spec)
	}
}
