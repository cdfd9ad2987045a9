package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// testFixture is a fixture with a service account of the rotator.
type testFixture struct {
	*fixture.Fixture
	state string // the namespace of the rotator
	lib   *secretmanager.Client
}

func newFixture(t *testing.T) *testFixture {
	t.Helper()
	f := &testFixture{Fixture: fixture.New(t), state: rotator.DefaultStateNamespace}
	f.API.CreateServiceAccount(t, f.state, "rotator")
	f.CreateNamespace(f.state)
	f.lib = secretmanager.New(f.Root, f.Kube)
	return f
}

// env is the environment of an administrator of Vault.
func (f *testFixture) env() map[string]string {
	return map[string]string{"VAULT_ADDR": f.Vault.Address, "VAULT_TOKEN": f.Vault.RootToken}
}

// store creates ciphertext Secrets.
func (f *testFixture) store(namespace string, names ...string) {
	f.T.Helper()
	for _, name := range names {
		_, _, err := f.lib.Apply(f.T.Context(), secretmanager.Spec{Namespace: namespace, Name: name,
			Settings: ciphertext.Settings{Key: ciphertext.Key{Name: f.Key}},
			Entries:  map[string][]byte{"e": []byte("hunter2")}}, secretmanager.Options{})
		f.Must(err)
	}
}

// makeImmutable makes a Secret immutable, so that it cannot be rewrapped.
func (f *testFixture) makeImmutable(namespace, name string) {
	f.T.Helper()
	_, err := f.Kube.CoreV1().Secrets(namespace).Patch(f.T.Context(), name, types.MergePatchType,
		[]byte(`{"immutable":true}`), metav1.PatchOptions{})
	f.Must(err)
}

// call runs the program and returns its exit code and both streams.
func call(ctx context.Context, env map[string]string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(ctx, args, func(name string) string { return env[name] }, &out, &err)
	return code, out.String(), err.String()
}

func TestUsage(t *testing.T) {
	env := map[string]string{"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "t"}
	tests := map[string]struct {
		env  map[string]string
		args []string
		code int
		want []string
	}{
		"help": {env, []string{"--help"}, 0,
			[]string{"--transit-key key", "[MOUNT/]KEY[=NAMESPACE,…]", "--max-gap duration", "(default 48h0m0s)",
				"--retire-after duration", "(default 168h0m0s)", "(default 24h0m0s)"}},
		"unknown flag": {env, []string{"--rotat"}, 2, []string{"unknown flag: --rotat"}},
		"argument":     {env, []string{"now"}, 2, []string{`unexpected arguments: ["now"]`}},
		"no Vault": {nil, nil, 2,
			[]string{"--vault-addr: is required", "--vault-role: is required with --vault-token-file, or VAULT_TOKEN"}},
		"plain HTTP": {map[string]string{"VAULT_ADDR": "http://vault:8200", "VAULT_TOKEN": "t"}, nil, 2,
			[]string{`--vault-addr: "http://vault:8200": plain HTTP`, "--vault-insecure-http"}},
		"plain HTTP, accepted": {map[string]string{"VAULT_ADDR": "http://vault:8200", "VAULT_TOKEN": "t"},
			[]string{"--vault-insecure-http", "--kubeconfig=/nowhere", "--transit-key=app"}, 1,
			[]string{"level=WARN", "requests to Vault are not encrypted", "address=http://vault:8200"}},
		"no key": {env, nil, 2, []string{"no transit key is selected (--transit-key)"}},
		"every key": {env, []string{"--transit-key=*"}, 2,
			[]string{`transit key "*": it selects every key, also those of other programs`}},
		"no statement":      {env, []string{"--transit-key=app", "--retire"}, 2, []string{"(--only-user)"}},
		"role without file": {env, []string{"--vault-role=r"}, 2, []string{"--vault-role: needs --vault-token-file"}},
		"file without role": {env, []string{"--vault-token-file=f"}, 2, []string{"--vault-token-file: needs --vault-role"}},
		"all at once": {env, []string{"--rotate=maybe", "--kube-qps=0", "--vault-qps=0", "--log-level=loud",
			"--log-format=xml", "--concurrency=0", "--max-key-age=0", "-n", "A_B", "--max-gap=0",
			"--release=demo"}, 2,
			[]string{`rotate "maybe"`, "--kube-qps: invalid value 0", "--vault-qps: invalid value 0",
				`--log-level: invalid value "loud"`, `--log-format: invalid value "xml"`,
				"--concurrency: must not be 0", "--max-key-age: must not be 0", `namespace "A_B"`, "--max-gap",
				`invalid Secret to release "demo"`}},
		"kubeconfig is missing": {env, []string{"--kubeconfig=/nowhere", "--transit-key=app"},
			1, []string{"finding the Kubernetes API server", "/nowhere"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := call(t.Context(), test.env, test.args...)
			if code != test.code || stdout != "" {
				t.Errorf("code %d, stdout %q", code, stdout)
			}
			for _, want := range test.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q is not in:\n%s", want, stderr)
				}
			}
		})
	}
}

func TestVersion(t *testing.T) {
	code, stdout, stderr := call(t.Context(), nil, "--version")
	if code != 0 || !strings.HasPrefix(stdout, "secretmanager-rotator v0.0.0-devel") || stderr != "" {
		t.Errorf("code %d, %q, %q", code, stdout, stderr)
	}
}

func TestRun(t *testing.T) {
	f := newFixture(t)
	policy := f.Policy(`
		path "transit/keys/KEY"        { capabilities = ["read"] }
		path "transit/keys/KEY/rotate" { capabilities = ["update"] }
		path "transit/rewrap/KEY"      { capabilities = ["update"] }`)
	f.TrustAPIServer()
	f.AllowLogin(testenv.Role{Name: f.Key, Namespace: f.state, ServiceAccount: "rotator", Policies: []string{policy}})
	f.store(f.Namespace, "s")
	token := filepath.Join(t.TempDir(), "token")
	login := []string{"--kubeconfig=" + f.API.Kubeconfig, "--vault-addr=" + f.Vault.Address, "--vault-role=" + f.Key,
		"--vault-token-file=" + token, "--settle=0s", "--transit-key=" + f.Key}

	// The token file does not exist.
	code, stdout, stderr := call(t.Context(), nil, append(login, "--rotate=always")...)
	if code != 1 || !strings.Contains(stderr, "check --vault-token-file") ||
		!strings.Contains(stderr, "reason=Incomplete") {
		t.Errorf("without the token: code %d, %s%s", code, stdout, stderr)
	}
	jwt := f.API.ServiceAccountToken(t, f.state, "rotator", "vault", 10*time.Minute)
	if err := os.WriteFile(token, []byte(jwt+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = call(t.Context(), nil,
		append(login, "--rotate=always", "--log-format=json", "--log-level=debug")...)
	if code != 0 {
		t.Fatalf("code %d: %s", code, stderr)
	}
	if strings.Count(stdout, "\n") != 1 {
		t.Errorf("stdout is not one line: %q", stdout)
	}
	var report rotator.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || len(report.Keys) != 1 ||
		report.Keys[0].Target != 2 || report.Keys[0].Rewrapped != 1 {
		t.Errorf("%v, report %s", err, stdout)
	}
	if got, err := f.lib.Read(t.Context(), f.Namespace, "s"); err != nil || string(got["e"]) != "hunter2" {
		t.Errorf("%v", err)
	}
	for _, secret := range []string{"hunter2", jwt, f.Vault.RootToken + `"`, "vault:v"} {
		if strings.Contains(stdout+stderr, secret) {
			t.Errorf("the output has a secret: %s%s", stdout, stderr)
		}
	}

	// With VAULT_TOKEN, and an entry that cannot be rewrapped.
	s := f.GetSecret(f.Namespace, "s")
	s.Data["bad"] = []byte("hunter2")
	if _, err := f.Kube.CoreV1().Secrets(f.Namespace).Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = call(t.Context(), f.env(), "--kubeconfig="+f.API.Kubeconfig, "-n", f.Namespace,
		"--transit-key="+f.Key)
	if code != 1 || !strings.Contains(stdout, `"entry":"bad"`) || strings.Contains(stdout+stderr, "hunter2") {
		t.Errorf("code %d, %s%s", code, stdout, stderr)
	}

	// Stopped before it began.
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if code, _, stderr := call(stopped, f.env(), "--kubeconfig="+f.API.Kubeconfig, "--transit-key="+f.Key); code != 1 {
		t.Errorf("code %d, %s", code, stderr)
	}
}
