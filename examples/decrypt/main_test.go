package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const ns, account = "demo", "matrix"

// TestDecrypt builds the program and runs it with the rights that its
// documentation names and no others.
func TestDecrypt(t *testing.T) {
	vault, api := testenv.SharedVault(t), testenv.SharedAPIServer(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "decrypt")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}

	admin, err := kubernetes.NewForConfig(api.Config)
	if err != nil {
		t.Fatal(err)
	}
	api.CreateServiceAccount(t, ns, account)
	for path, data := range map[string]map[string]any{
		"transit/keys/matrix":     {"derived": true},
		"sys/policies/acl/matrix": {"policy": `path "transit/decrypt/matrix" { capabilities = ["update"] }`},
	} {
		if _, err := vault.Write(t.Context(), path, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := vault.TrustAPIServer(t.Context(), "kubernetes", api, api.ReviewerToken(t)); err != nil {
		t.Fatal(err)
	}
	if err := vault.AllowLogin(t.Context(),
		testenv.Role{Namespace: ns, ServiceAccount: account, Policies: []string{"matrix"}}); err != nil {
		t.Fatal(err)
	}
	role := metav1.ObjectMeta{Namespace: ns, Name: "matrix"}
	if _, err := admin.RbacV1().Roles(ns).Create(t.Context(), &rbacv1.Role{ObjectMeta: role, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"matrix-secrets"},
			Verbs: []string{"get"}},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.RbacV1().RoleBindings(ns).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: role,
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: account}},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	client, err := transit.NewClient(transit.Config{Address: vault.Address})
	if err != nil {
		t.Fatal(err)
	}
	lib := secretmanager.New(client.Session("", transit.StaticToken(vault.RootToken)), admin)
	if _, _, err := lib.Apply(t.Context(), secretmanager.Spec{Namespace: ns, Name: "matrix-secrets",
		Settings: ciphertext.Settings{Key: ciphertext.Key{Name: "matrix"}},
		Entries:  map[string][]byte{"token": []byte("hunter2"), "secrets.json": []byte("{}\n")}},
		secretmanager.Options{}); err != nil {
		t.Fatal(err)
	}

	// What the kubelet gives a pod: its own token for the API server, and one for Vault.
	config := rest.AnonymousClientConfig(api.Config)
	config.BearerToken = api.ServiceAccountToken(t, ns, account, "", 10*time.Minute)
	kubeconfig, token := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "token")
	file := clientcmdapi.NewConfig()
	file.Clusters["c"] = &clientcmdapi.Cluster{Server: api.Address, CertificateAuthority: api.CAFile}
	file.AuthInfos["pod"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	file.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "pod"}
	file.CurrentContext = "x"
	if err := clientcmd.WriteToFile(*file, kubeconfig); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(token, []byte(api.ServiceAccountToken(t, ns, account, "vault", 10*time.Minute)+"\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	waitForRole(t, config)

	tests := map[string]struct {
		args []string
		want string // of stdout; of the error if it begins with "decrypt: "
	}{
		"names and lengths": {[]string{"matrix-secrets"}, "secrets.json\t3 bytes\ntoken\t7 bytes\n"},
		"values if asked": {[]string{"--show-values", "matrix-secrets"},
			"secrets.json\t3 bytes\t\"{}\\n\"\ntoken\t7 bytes\t\"hunter2\"\n"},
		"another Secret": {[]string{"other"}, `decrypt: reading Secret demo/other: secrets "other" is forbidden`},
		"another role": {[]string{"--vault-role=nobody", "matrix-secrets"},
			`decrypt: reading Secret demo/matrix-secrets: logging in to Vault as role "nobody"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"--namespace=" + ns, "--kubeconfig=" + kubeconfig, "--vault-addr=" + vault.Address,
				"--vault-role=" + account, "--vault-token-file=" + token}, test.args...)
			cmd := exec.CommandContext(t.Context(), program, args...)
			var stdout, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			if strings.HasPrefix(test.want, "decrypt: ") {
				if err == nil || !strings.HasPrefix(stderr.String(), test.want) {
					t.Errorf("%v, %s, want %q", err, stderr.String(), test.want)
				}
				return
			}
			if err != nil || stdout.String() != test.want {
				t.Errorf("%v, %q, %s", err, stdout.String(), stderr.String())
			}
		})
	}
}

// waitForRole waits until the API server knows of the pod's role.
func waitForRole(t *testing.T, config *rest.Config) {
	t.Helper()
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := kube.CoreV1().Secrets(ns).Get(t.Context(), "matrix-secrets", metav1.GetOptions{})
		if err == nil {
			return
		}
		if !apierrors.IsForbidden(err) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
