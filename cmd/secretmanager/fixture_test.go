package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// scripts has the servers that all scripts share.
type scripts struct{ *fixture.Fixture }

func newScripts(t *testing.T) *scripts {
	t.Helper()
	w := &scripts{fixture.New(t)}
	w.TrustIssuer()
	return w
}

// createNamespace creates a namespace with the objects of the rotator, and a derived transit key of
// the same name.
func (w *scripts) createNamespace(ctx context.Context) (string, error) {
	ns := testenv.UniqueName("cli")
	_, err := w.Kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}},
		metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("creating namespace %s: %w", ns, err)
	}
	if err := w.API.CreateRotatorState(ctx, ns); err != nil {
		return "", err
	}
	_, err = w.Vault.Write(ctx, "transit/keys/"+ns, map[string]any{"derived": true})
	return ns, err
}

// setup sets the environment of a script: the root token of Vault, and a kubeconfig of the cluster's
// administrator.
func (w *scripts) setup(e *testscript.Env) error {
	ns, err := w.createNamespace(w.T.Context())
	if err != nil {
		return err
	}
	home := filepath.Join(e.WorkDir, ".home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"HOME": home, "NS": ns, "KEY": ns, "KUBECONFIG": w.API.Kubeconfig,
		"VAULT_ADDR": w.Vault.Address, "VAULT_TOKEN": w.Vault.RootToken,
		"GORACE": os.Getenv("GORACE"), // see the Makefile
	} {
		e.Setenv(name, value)
	}
	return nil
}

// user runs commands in this process, with the environment of the scripts.
type user struct {
	*fixture.Fixture
	t   *testing.T
	env map[string]string

	kubeconfig string
}

func newUser(t *testing.T) *user {
	t.Helper()
	f := newScripts(t).Fixture
	return &user{Fixture: f, t: t, kubeconfig: f.API.Kubeconfig,
		env: map[string]string{"VAULT_ADDR": f.Vault.Address, "VAULT_TOKEN": f.Vault.RootToken,
			"SECRETMANAGER_SETTLE": "0s"}}
}

// run runs a verb in the namespace of the user.
func (u *user) run(stdin string, args ...string) (code int, stdout, stderr string) {
	u.t.Helper()
	return u.runExactly(stdin, append(args, "--kubeconfig", u.kubeconfig, "-n", u.Namespace)...)
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
	return u.GetSecret(u.Namespace, name)
}
