package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const account = "matrix"

// TestDecrypt builds the program and runs it with the rights that its
// documentation names and no others.
func TestDecrypt(t *testing.T) {
	f := fixture.New(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "decrypt")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}

	f.API.CreateServiceAccount(t, f.Namespace, account)
	f.TrustAPIServer()
	f.AllowLogin(testenv.Role{Name: f.Key, Namespace: f.Namespace, ServiceAccount: account,
		Policies: []string{f.Policy(fixture.DecryptPolicy)}})
	f.AllowGet(account, "matrix-secrets")
	lib := secretmanager.New(f.Root, f.Kube)
	if _, _, err := lib.Apply(t.Context(), secretmanager.Spec{Namespace: f.Namespace, Name: "matrix-secrets",
		Settings: ciphertext.Settings{Key: ciphertext.Key{Name: f.Key}},
		Entries:  map[string][]byte{"token": []byte("hunter2"), "secrets.json": []byte("{}\n")}},
		secretmanager.Options{}); err != nil {
		t.Fatal(err)
	}

	// What the kubelet gives a pod: its own token for the API server, and one for Vault.
	config := rest.AnonymousClientConfig(f.API.Config)
	config.BearerToken = f.API.ServiceAccountToken(t, f.Namespace, account, "", 10*time.Minute)
	kubeconfig, token := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "token")
	file := clientcmdapi.NewConfig()
	file.Clusters["c"] = &clientcmdapi.Cluster{Server: f.API.Address, CertificateAuthority: f.API.CAFile}
	file.AuthInfos["pod"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	file.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "pod"}
	file.CurrentContext = "x"
	if err := clientcmd.WriteToFile(*file, kubeconfig); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(token, []byte(f.API.ServiceAccountToken(t, f.Namespace, account, "vault", 10*time.Minute)+"\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	waitForRole(t, f.Namespace, config)

	tests := map[string]struct {
		args []string
		want string // of stdout; of the error if it begins with "decrypt: "
	}{
		"names and lengths": {[]string{"matrix-secrets"}, "secrets.json\t3 bytes\ntoken\t7 bytes\n"},
		"values if asked": {[]string{"--show-values", "matrix-secrets"},
			"secrets.json\t3 bytes\t\"{}\\n\"\ntoken\t7 bytes\t\"hunter2\"\n"},
		"another Secret": {[]string{"other"},
			`decrypt: reading Secret ` + f.Namespace + `/other: secrets "other" is forbidden`},
		"another role": {[]string{"--vault-role=nobody", "matrix-secrets"},
			`decrypt: reading Secret ` + f.Namespace + `/matrix-secrets: logging in to Vault as role "nobody"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"--namespace=" + f.Namespace, "--kubeconfig=" + kubeconfig,
				"--vault-addr=" + f.Vault.Address, "--vault-role=" + f.Key, "--vault-token-file=" + token}, test.args...)
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
func waitForRole(t *testing.T, ns string, config *rest.Config) {
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
