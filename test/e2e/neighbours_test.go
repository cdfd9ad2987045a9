package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

// TestNeighbours tests what other providers' own tests check, and neither the driver's
// suite (TestDriver) nor TestStory and the tests of faults: a wrong service account, single
// fields, a provider that was restarted.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	requireProduct(t)
	for name, run := range map[string]func(*testing.T, *fixture){
		"file modes":                checkModes,
		"custom audience":           checkAudience,
		"consistent version hashes": checkVersions,
		"JWT auth":                  checkJWT,
		"nested and invalid paths":  checkPaths,
		"large files":               checkLarge,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			namespace := newNamespace(t)
			f := &fixture{namespace: namespace, key: namespace, driver: cluster.ThrottledDriver}
			f.setUp(t)
			run(t, f)
		})
	}
}

// classOf returns a class with additional parameters, each a line of YAML.
func (f *fixture) classOf(name, role, objects string, more ...string) string {
	return fmt.Sprintf(`
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: %s, namespace: %s}
spec:
  provider: %s
  parameters:
    roleName: %s
    secretName: %s
    transitKey: %s
    objects: |
      %s
%s`, name, f.namespace, f.providerName(), role, secretName, f.key,
		strings.ReplaceAll(strings.TrimSpace(objects), "\n", "\n      "), "    "+strings.Join(more, "\n    "))
}

// encrypt creates the fixture's Secret.
func (f *fixture) encrypt(t *testing.T) {
	t.Helper()
	command(t, f.author, shared.Kubeconfig, f.encryptArgs(t)...)
}

// checkModes tests a pod that does not run as root. The driver writes files as root and
// does not apply fsGroup, so the mode bits for others determine what the pod can read.
func checkModes(t *testing.T, f *fixture) {
	f.encrypt(t)
	apply(t, f.classYAML("matrix", f.role("matrix"), secretName),
		strings.Replace(f.podYAML("app", "matrix", "matrix", secretName), "  containers:\n",
			"  securityContext: {runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532}\n  containers:\n", 1))
	if err := shared.WaitPod(t.Context(), f.namespace, "app"); err != nil {
		t.Fatal(err)
	}
	if got := f.sh(t, "app", "id -u; cat /secrets/secrets.json"); got != "65532\n"+jsonText {
		t.Errorf("the pod reads %q", got)
	}
	want := "0 0 644 0 0 440 0 0 600\n"
	if got := f.sh(t, "app", "cd /secrets && echo $(stat -L -c '%u %g %a' secrets.json api-token "+
		"db/password)"); got != want {
		t.Errorf("owners and modes are %q, want %q", got, want)
	}
	for _, file := range []string{"api-token", "db/password"} {
		if got := f.sh(t, "app", "cat /secrets/"+file+" 2>&1 || true"); !strings.Contains(got, "Permission denied") {
			t.Errorf("the pod reads %q in %s", got, file)
		}
	}
}

// checkAudience tests roles that accept only tokens for another audience.
func checkAudience(t *testing.T, f *fixture) {
	f.encrypt(t)
	role := f.namespace + "-audience"
	f.addRole(t, "--audience", cluster.OtherAudience, "--role", role)
	apply(t, f.classOf("matrix", role, "- objectName: api-token", "audience: "+cluster.OtherAudience),
		f.podYAML("app", "matrix", "matrix", secretName),
		f.classOf("default", role, "- objectName: api-token"), f.podYAML("wrong", "matrix", "default", secretName),
		f.classOf("unknown", role, "- objectName: api-token", "audience: nobody"),
		f.podYAML("nobody", "matrix", "unknown", secretName))
	f.waitReady(t, "app")
	if got := f.sh(t, "app", "cat /secrets/api-token"); got != firstToken {
		t.Errorf("the pod reads %q", got)
	}
	f.checkStuck(t, "wrong", "LoginDenied: ", "invalid audience", `"vault"`, "check")
	f.checkStuck(t, "nobody", "TokenMissing: ", `"nobody"`, "tokenRequests", "check")
}

// addRole creates another role for the app in Vault.
func (f *fixture) addRole(t *testing.T, args ...string) {
	t.Helper()
	setUpLock.Lock()
	defer setUpLock.Unlock()
	command(t, shared.Vault.Token, "", append([]string{"vault-setup", "--apply", "--transit-key", f.key, "-n", f.namespace,
		"--service-account", "matrix", "--rotator-role", f.namespace + "-rotator", "--retire"}, args...)...)
}

// checkVersions compares the object versions of pods that were mounted before and after
// the provider was killed.
func checkVersions(t *testing.T, f *fixture) {
	f.encrypt(t)
	f.provider = f.namespace
	provider := newProvider(t, f.provider)
	provider.start(t)
	apply(t, f.classYAML("matrix", f.role("matrix"), secretName))
	f.pod(t, "before")
	f.waitReady(t, "before")
	versions := f.objectVersions(t, "before", "matrix")
	provider.kill(t)
	f.pod(t, "after")
	f.waitReady(t, "after")
	if diff := cmp.Diff(versions, f.objectVersions(t, "after", "matrix")); diff != "" {
		t.Errorf("object versions (-before +after):\n%s", diff)
	}
}

// checkJWT tests logins at a mount where Vault itself verifies tokens, with the API server's keys.
func checkJWT(t *testing.T, f *fixture) {
	f.encrypt(t)
	mount := f.namespace
	f.provider = f.namespace
	newProvider(t, f.provider, "--vault-allowed-auth-mounts="+mount).start(t)
	client := shared.Client.Discovery().RESTClient()
	var issuer struct{ Issuer string }
	var set struct{ Keys []struct{ N, E string } }
	for path, into := range map[string]any{"/.well-known/openid-configuration": &issuer, "/openid/v1/jwks": &set} {
		text, err := client.Get().AbsPath(path).DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
	var keys []string
	for _, k := range set.Keys {
		n, err := base64.RawURLEncoding.DecodeString(k.N)
		if err != nil {
			t.Fatal(err)
		}
		e, err := base64.RawURLEncoding.DecodeString(k.E)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).SetBytes(n),
			E: int(new(big.Int).SetBytes(e).Int64())})
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	}
	if err := shared.Vault.Do(t.Context(), http.MethodPost, "sys/auth/"+mount, map[string]any{"type": "jwt"},
		nil); err != nil {
		t.Fatal(err)
	}
	config := map[string]any{"jwt_validation_pubkeys": keys, "bound_issuer": issuer.Issuer}
	if err := shared.Vault.Do(t.Context(), http.MethodPost, "auth/"+mount+"/config", config, nil); err != nil {
		t.Fatal(err)
	}
	f.addRole(t, "--auth-mount", mount)
	createServiceAccount(t, f.namespace, "smith")
	apply(t, f.classOf("matrix", f.role("matrix"), "- objectName: api-token", "vaultAuthMountPath: "+mount),
		f.podYAML("app", "matrix", "matrix", secretName), f.podYAML("agent", "smith", "matrix", secretName))
	f.waitReady(t, "app")
	if got := f.sh(t, "app", "cat /secrets/api-token"); got != firstToken {
		t.Errorf("the pod reads %q", got)
	}
	f.checkStuck(t, "agent", "LoginDenied: ", f.role("matrix"), f.namespace+"/smith", "auth/"+mount, "check")
}

// checkPaths tests paths that are dangerous for the driver or the node: the error names
// all of them, and nothing is written.
func checkPaths(t *testing.T, f *fixture) {
	f.encrypt(t)
	long, escape := strings.Repeat("x", 255), "escape-"+f.namespace
	apply(t, f.classOf("nested", f.role("matrix"), `
- objectName: api-token
- {objectName: a/b/c/d/e/f, secretKey: api-token}
- {objectName: `+long+`/x, secretKey: api-token}
`), f.podYAML("app", "matrix", "nested", secretName))
	invalid := []string{"../" + escape, "a/../../" + escape, "/tmp/" + escape, ".", "..data", "a//b", "x" + long}
	objects := ""
	for _, path := range invalid {
		objects += fmt.Sprintf("- {objectName: %q, secretKey: api-token}\n", path)
	}
	objects += "- {objectName: file, secretKey: api-token}\n- {objectName: file/in-a-file, secretKey: api-token}\n- " +
		"{objectName: file, secretKey: secrets.json}\n"
	apply(t, f.classOf("invalid", f.role("matrix"), objects), f.podYAML("stuck", "matrix", "invalid", secretName))

	f.waitReady(t, "app")
	for _, file := range []string{"api-token", "a/b/c/d/e/f", long + "/x"} {
		if got := f.sh(t, "app", "cat /secrets/"+file); got != firstToken {
			t.Errorf("the pod reads %q in %s", got, file)
		}
	}
	var texts []string
	for n := range invalid {
		texts = append(texts, fmt.Sprintf("objects[%d].objectName", n))
	}
	f.checkStuck(t, "stuck", slices.Concat([]string{"InvalidParameters: ", "objects[9].objectName"}, texts)...)
	if found := onNodeLines(t, "find", "/etc", "/run", "/tmp", "/var", "-path", "/var/lib/containerd", "-prune", "-o",
		"-name", escape, "-print"); len(found) > 0 {
		t.Errorf("there is %q", found)
	}
	pod, err := shared.Client.CoreV1().Pods(f.namespace).Get(t.Context(), "stuck", getOptions)
	if err != nil {
		t.Fatal(err)
	}
	if found := onNodeLines(t, "find", "/var/lib/kubelet/pods/"+string(pod.UID)+"/volumes", "-type", "f", "-not",
		"-name", "vol_data.json"); len(found) > 0 {
		t.Errorf("the volume has %q", found)
	}
}

// checkLarge tests a Secret of the maximum size, once and five times in a volume, which
// the driver accepts, and six times, which it would not accept.
func checkLarge(t *testing.T, f *fixture) {
	size := ciphertext.MaxSecretSize
	for ciphertext.Size(size) > ciphertext.MaxSecretSize {
		size--
	}
	plaintext := make([]byte, size)
	rand.Read(plaintext)
	file := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(file, plaintext, 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, f.author, shared.Kubeconfig, "encrypt", secretName, "-n", f.namespace, "--transit-key", f.key,
		"--from-file", "api-token="+file)
	if n := len(f.secret(t, secretName).Data["api-token"]); n < ciphertext.MaxSecretSize-16 {
		t.Errorf("the ciphertext has %d bytes, and %d could be", n, ciphertext.MaxSecretSize)
	}
	times := func(n int) string {
		objects := "- objectName: api-token\n"
		for i := range n - 1 {
			objects += fmt.Sprintf("- {objectName: %d, secretKey: api-token}\n", i+1)
		}
		return objects
	}
	role := f.role("matrix")
	apply(t, f.classOf("five", role, times(5)), f.podYAML("app", "matrix", "five", secretName),
		f.classOf("six", role, times(6)), f.podYAML("stuck", "matrix", "six", secretName))
	f.waitReady(t, "app")
	sum := sha256.Sum256(plaintext)
	got := strings.Fields(f.sh(t, "app", "cd /secrets && sha256sum api-token 1 2 3 4"))
	for i := 0; i < len(got); i += 2 {
		if got[i] != hex.EncodeToString(sum[:]) {
			t.Errorf("file %s has the SHA-256 %s, want %x", got[i+1], got[i], sum)
		}
	}
	if len(got) != 10 {
		t.Errorf("sha256sum printed %q", got)
	}
	f.checkStuck(t, "stuck", "VolumeTooLarge: ", "several classes and volumes")
	f.waitTries(t, "stuck", 2) // none of them counts as mounted
	f.checkWaiting(t, "stuck")
}
