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
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestMain(m *testing.M) { testenv.Main(m) }

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
			[]string{"--transit-key key", "--retire-after duration", "(default 168h0m0s)", "(default 24h0m0s)"}},
		"unknown flag": {env, []string{"--rotat"}, 2, []string{"unknown flag: --rotat"}},
		"argument":     {env, []string{"now"}, 2, []string{`unexpected arguments: ["now"]`}},
		"no Vault": {nil, nil, 2,
			[]string{"--vault-addr: is required", "--vault-role: is required with --vault-token-file, or VAULT_TOKEN"}},
		"plain HTTP": {map[string]string{"VAULT_ADDR": "http://vault:8200", "VAULT_TOKEN": "t"}, nil, 2,
			[]string{`--vault-addr: "http://vault:8200": plain HTTP`, "--vault-insecure-http"}},
		"plain HTTP, accepted": {map[string]string{"VAULT_ADDR": "http://vault:8200", "VAULT_TOKEN": "t"},
			[]string{"--vault-insecure-http", "--kubeconfig=/nowhere"}, 1,
			[]string{"level=WARN", "requests to Vault are not encrypted", "address=http://vault:8200"}},
		"role without file": {env, []string{"--vault-role=r"}, 2, []string{"--vault-role: needs --vault-token-file"}},
		"file without role": {env, []string{"--vault-token-file=f"}, 2, []string{"--vault-token-file: needs --vault-role"}},
		"all at once": {env, []string{"--rotate=maybe", "--kube-qps=0", "--vault-qps=0", "--log-level=loud",
			"--log-format=xml", "--concurrency=0", "--max-key-age=0", "-n", "A_B"}, 2,
			[]string{`rotate "maybe"`, "--kube-qps: invalid value 0", "--vault-qps: invalid value 0",
				`--log-level: invalid value "loud"`, `--log-format: invalid value "xml"`,
				"--concurrency: must not be 0", "--max-key-age: must not be 0", `namespace "A_B"`}},
		"kubeconfig is missing": {env, []string{"--kubeconfig=/nowhere"},
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
	vault, api := testenv.SharedVault(t), testenv.SharedAPIServer(t)
	kube, err := kubernetes.NewForConfig(api.Config)
	if err != nil {
		t.Fatal(err)
	}
	api.CreateNamespace(t, "demo")
	api.CreateServiceAccount(t, rotator.DefaultStateNamespace, "rotator")
	if err := api.CreateRotatorState(t.Context(), rotator.DefaultStateNamespace); err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string]map[string]any{
		"transit/keys/app": {"derived": true},
		"sys/policies/acl/rotator": {"policy": `
			path "transit/keys/app"        { capabilities = ["read"] }
			path "transit/keys/app/rotate" { capabilities = ["update"] }
			path "transit/rewrap/app"      { capabilities = ["update"] }`},
	} {
		if _, err := vault.Write(t.Context(), path, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := vault.TrustAPIServer(t.Context(), "kubernetes", api, api.ReviewerToken(t)); err != nil {
		t.Fatal(err)
	}
	if err := vault.AllowLogin(t.Context(),
		testenv.Role{Namespace: rotator.DefaultStateNamespace, ServiceAccount: "rotator",
			Policies: []string{"rotator"}}); err != nil {
		t.Fatal(err)
	}
	client, err := transit.NewClient(transit.Config{Address: vault.Address})
	if err != nil {
		t.Fatal(err)
	}
	lib := secretmanager.New(client.Session("", transit.StaticToken(vault.RootToken)), kube)
	if _, _, err := lib.Apply(t.Context(),
		secretmanager.Spec{Namespace: "demo", Name: "s", Settings: ciphertext.Settings{Key: ciphertext.Key{Name: "app"}},
			Entries: map[string][]byte{"e": []byte("hunter2")}}, secretmanager.Options{}); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "token")
	login := []string{"--kubeconfig=" + api.Kubeconfig, "--vault-addr=" + vault.Address, "--vault-role=rotator",
		"--vault-token-file=" + token, "--settle=0s"}
	rootEnv := map[string]string{"VAULT_ADDR": vault.Address, "VAULT_TOKEN": vault.RootToken}

	// The token file does not exist.
	code, stdout, stderr := call(t.Context(), nil, append(login, "--rotate=always")...)
	if code != 1 || !strings.Contains(stderr, "check --vault-token-file") {
		t.Errorf("without the token: code %d, %s%s", code, stdout, stderr)
	}
	jwt := api.ServiceAccountToken(t, rotator.DefaultStateNamespace, "rotator", "vault", 10*time.Minute)
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
	if got, err := lib.Read(t.Context(), "demo", "s"); err != nil || string(got["e"]) != "hunter2" {
		t.Errorf("%v", err)
	}
	for _, secret := range []string{"hunter2", jwt, vault.RootToken + `"`, "vault:v"} {
		if strings.Contains(stdout+stderr, secret) {
			t.Errorf("the output has a secret: %s%s", stdout, stderr)
		}
	}

	// With VAULT_TOKEN, and an entry that cannot be rewrapped.
	s, err := kube.CoreV1().Secrets("demo").Get(t.Context(), "s", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.Data["bad"] = []byte("hunter2")
	if _, err := kube.CoreV1().Secrets("demo").Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = call(t.Context(), rootEnv, "--kubeconfig="+api.Kubeconfig, "-n", "demo")
	if code != 1 || !strings.Contains(stdout, `"entry":"bad"`) || strings.Contains(stdout+stderr, "hunter2") {
		t.Errorf("code %d, %s%s", code, stdout, stderr)
	}

	// Stopped before it began.
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if code, _, stderr := call(stopped, rootEnv, "--kubeconfig="+api.Kubeconfig); code != 1 {
		t.Errorf("code %d, %s", code, stderr)
	}
}
