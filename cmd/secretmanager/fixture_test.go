package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// fixture has the servers that all scripts share.
type fixture struct {
	t      *testing.T
	vault  *testenv.Vault
	server *testenv.APIServer
	kube   kubernetes.Interface
	issuer *testenv.JWTIssuer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	w := &fixture{t: t, vault: testenv.SharedVault(t), server: testenv.SharedAPIServer(t)}
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

// createNamespace creates a namespace with the objects of the rotator, and a derived transit key of
// the same name.
func (w *fixture) createNamespace(ctx context.Context) (string, error) {
	ns := "cli-" + strings.ToLower(rand.Text()[:10])
	_, err := w.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}},
		metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("creating namespace %s: %w", ns, err)
	}
	if err := w.server.CreateRotatorState(ctx, ns); err != nil {
		return "", err
	}
	_, err = w.vault.Write(ctx, "transit/keys/"+ns, map[string]any{"derived": true})
	return ns, err
}

// setup sets the environment of a script: the root token of Vault, and a kubeconfig of the cluster's
// administrator.
func (w *fixture) setup(e *testscript.Env) error {
	ns, err := w.createNamespace(w.t.Context())
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
		"GORACE": os.Getenv("GORACE"), // see the Makefile
	} {
		e.Setenv(name, value)
	}
	return nil
}

// user runs commands in this process, with the environment of the scripts.
type user struct {
	*fixture
	t   *testing.T
	ns  string // and key
	env map[string]string

	kubeconfig string
}

func newUser(t *testing.T) *user {
	t.Helper()
	w := newFixture(t)
	ns, err := w.createNamespace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &user{fixture: w, t: t, ns: ns, kubeconfig: w.server.Kubeconfig,
		env: map[string]string{"VAULT_ADDR": w.vault.Address, "VAULT_TOKEN": w.vault.RootToken}}
}

// run runs a verb in the namespace of the user.
func (u *user) run(stdin string, args ...string) (code int, stdout, stderr string) {
	u.t.Helper()
	return u.runExactly(stdin, append(args, "--kubeconfig", u.kubeconfig, "-n", u.ns)...)
}

// runExactly runs a command line that names the cluster and the namespace.
func (u *user) runExactly(stdin string, args ...string) (code int, stdout, stderr string) {
	u.t.Helper()
	var out, errOut bytes.Buffer
	code = root.Run(u.t.Context(), cli.Environment{
		IOStreams:   genericiooptions.IOStreams{In: strings.NewReader(stdin), Out: &out, ErrOut: &errOut},
		ProgramName: "secretmanager", Getenv: func(name string) string { return u.env[name] },
	}, args)
	return code, out.String(), errOut.String()
}

// must runs a verb, which must succeed.
func (u *user) must(stdin string, args ...string) (stdout string) {
	u.t.Helper()
	code, stdout, stderr := u.run(stdin, args...)
	if code != cli.ExitDone {
		u.t.Fatalf("%s: exit code %d: %s", args[0], code, stderr)
	}
	return stdout
}

func (u *user) secret(name string) *corev1.Secret {
	u.t.Helper()
	s, err := u.kube.CoreV1().Secrets(u.ns).Get(u.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		u.t.Fatal(err)
	}
	return s
}
