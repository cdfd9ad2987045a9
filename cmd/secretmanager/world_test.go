package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/testenv"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// world is what all scripts share.
type world struct {
	t      *testing.T
	vault  *testenv.Vault
	server *testenv.APIServer
	kube   kubernetes.Interface
	issuer *testenv.JWTIssuer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, vault: testenv.SharedVault(t), server: testenv.SharedAPIServer(t)}
	var err error
	if w.issuer, err = testenv.NewJWTIssuer(); err != nil {
		t.Fatal(err)
	}
	if err := w.vault.TrustIssuer(t.Context(), "jwt", w.issuer); err != nil {
		t.Fatal(err)
	}
	if w.kube, err = kubernetes.NewForConfig(w.server.Config); err != nil {
		t.Fatal(err)
	}
	return w
}

// place makes a namespace and a derived transit key of one name.
func (w *world) place(ctx context.Context) (string, error) {
	ns := "cli-" + strings.ToLower(rand.Text()[:10])
	_, err := w.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("making namespace %s: %w", ns, err)
	}
	_, err = w.vault.Write(ctx, "transit/keys/"+ns, map[string]any{"derived": true})
	return ns, err
}

// setup gives a script its environment: the user of a workstation, with the
// root token of Vault and the cluster's administrator in its kubeconfig.
func (w *world) setup(e *testscript.Env) error {
	ns, err := w.place(w.t.Context())
	if err != nil {
		return err
	}
	home := filepath.Join(e.WorkDir, ".home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"HOME": home, "NS": ns, "KEY": ns, "KUBECONFIG": w.server.Kubeconfig,
		"VAULT_ADDR": w.vault.Address, "VAULT_TOKEN": w.vault.RootToken,
	} {
		e.Setenv(name, value)
	}
	return nil
}
