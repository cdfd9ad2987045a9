package main

import (
	"bytes"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
	"github.com/secretmanager-io/secretmanager/test/cliscript"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// user runs commands in this process, with the environment of the scripts.
type user struct {
	*fixture.Fixture
	t   *testing.T
	env map[string]string

	kubeconfig string
}

func newUser(t *testing.T) *user {
	t.Helper()
	f := cliscript.New(t).Fixture
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
