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

// TestNeighbours has what other providers' own tests look at, beyond the driver's suite
// (see TestDriver) and what TestStory and the tests of faults have: a wrong service
// account, single fields, a provider that was restarted.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	requireProduct(t)
	for name, run := range map[string]func(*testing.T, *world){
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
			w := &world{namespace: namespace, key: namespace, driver: cluster.ThrottledDriver}
			w.setUp(t)
			run(t, w)
		})
	}
}

// classOf is a class with further parameters, each a line of YAML.
func (w *world) classOf(name, role, objects string, more ...string) string {
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
%s`, name, w.namespace, w.providerName(), role, secretName, w.key, strings.ReplaceAll(strings.TrimSpace(objects), "\n", "\n      "), "    "+strings.Join(more, "\n    "))
}

// encrypt makes the Secret of a world.
func (w *world) encrypt(t *testing.T) {
	t.Helper()
	command(t, w.author, shared.Kubeconfig, w.encryptArgs(t)...)
}

// checkModes has a pod that is not root. The driver writes files as root and
// does not apply fsGroup, so that the bits for others are what it has.
func checkModes(t *testing.T, w *world) {
	w.encrypt(t)
	apply(t, w.classYAML("matrix", w.role("matrix"), secretName),
		strings.Replace(w.podYAML("app", "matrix", "matrix", secretName), "  containers:\n", "  securityContext: {runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532}\n  containers:\n", 1))
	if err := shared.WaitPod(t.Context(), w.namespace, "app"); err != nil {
		t.Fatal(err)
	}
	if got := w.sh(t, "app", "id -u; cat /secrets/secrets.json"); got != "65532\n"+jsonText {
		t.Errorf("the pod reads %q", got)
	}
	want := "0 0 644 0 0 440 0 0 600\n"
	if got := w.sh(t, "app", "cd /secrets && echo $(stat -L -c '%u %g %a' secrets.json api-token db/password)"); got != want {
		t.Errorf("owners and modes are %q, want %q", got, want)
	}
	for _, file := range []string{"api-token", "db/password"} {
		if got := w.sh(t, "app", "cat /secrets/"+file+" 2>&1 || true"); !strings.Contains(got, "Permission denied") {
			t.Errorf("the pod reads %q in %s", got, file)
		}
	}
}

// checkAudience has roles that take no tokens but those for another audience.
func checkAudience(t *testing.T, w *world) {
	w.encrypt(t)
	role := w.namespace + "-audience"
	w.addRole(t, "--audience", cluster.OtherAudience, "--role", role)
	apply(t, w.classOf("matrix", role, "- objectName: api-token", "audience: "+cluster.OtherAudience), w.podYAML("app", "matrix", "matrix", secretName),
		w.classOf("default", role, "- objectName: api-token"), w.podYAML("wrong", "matrix", "default", secretName),
		w.classOf("unknown", role, "- objectName: api-token", "audience: nobody"), w.podYAML("nobody", "matrix", "unknown", secretName))
	w.waitReady(t, "app")
	if got := w.sh(t, "app", "cat /secrets/api-token"); got != firstToken {
		t.Errorf("the pod reads %q", got)
	}
	w.checkStuck(t, "wrong", "code = PermissionDenied", "invalid audience", `"vault"`, "check")
	w.checkStuck(t, "nobody", "code = FailedPrecondition", `"nobody"`, "tokenRequests", "check")
}

// addRole gives the app a further role in Vault.
func (w *world) addRole(t *testing.T, args ...string) {
	t.Helper()
	setUpLock.Lock()
	defer setUpLock.Unlock()
	command(t, shared.Vault.Token, "", append([]string{"vault-setup", "--apply", "--transit-key", w.key, "-n", w.namespace,
		"--service-account", "matrix", "--rotator-role", w.namespace + "-rotator", "--retire"}, args...)...)
}

// checkVersions compares the versions of a pod that a provider mounted before it was
// killed with those of one after it.
func checkVersions(t *testing.T, w *world) {
	w.encrypt(t)
	w.provider = w.namespace
	provider := newProvider(t, w.provider)
	provider.start(t)
	apply(t, w.classYAML("matrix", w.role("matrix"), secretName))
	w.pod(t, "before")
	w.waitReady(t, "before")
	versions := w.objectVersions(t, "before", "matrix")
	provider.kill(t)
	w.pod(t, "after")
	w.waitReady(t, "after")
	if diff := cmp.Diff(versions, w.objectVersions(t, "after", "matrix")); diff != "" {
		t.Errorf("object versions (-before +after):\n%s", diff)
	}
}

// checkJWT logs in where Vault checks the tokens by itself, with the API server's keys.
func checkJWT(t *testing.T, w *world) {
	w.encrypt(t)
	mount := w.namespace
	w.provider = w.namespace
	newProvider(t, w.provider, "--vault-allowed-auth-mounts="+mount).start(t)
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
		der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())})
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	}
	if err := shared.Vault.Do(t.Context(), http.MethodPost, "sys/auth/"+mount, map[string]any{"type": "jwt"}, nil); err != nil {
		t.Fatal(err)
	}
	config := map[string]any{"jwt_validation_pubkeys": keys, "bound_issuer": issuer.Issuer}
	if err := shared.Vault.Do(t.Context(), http.MethodPost, "auth/"+mount+"/config", config, nil); err != nil {
		t.Fatal(err)
	}
	w.addRole(t, "--auth-mount", mount)
	createServiceAccount(t, w.namespace, "smith")
	apply(t, w.classOf("matrix", w.role("matrix"), "- objectName: api-token", "vaultAuthMountPath: "+mount),
		w.podYAML("app", "matrix", "matrix", secretName), w.podYAML("agent", "smith", "matrix", secretName))
	w.waitReady(t, "app")
	if got := w.sh(t, "app", "cat /secrets/api-token"); got != firstToken {
		t.Errorf("the pod reads %q", got)
	}
	w.checkStuck(t, "agent", "code = PermissionDenied", w.role("matrix"), w.namespace+"/smith", "auth/"+mount, "check")
}

// checkPaths has paths that the driver, or the node, would suffer from: all are
// named at once, and nothing is written.
func checkPaths(t *testing.T, w *world) {
	w.encrypt(t)
	long, escape := strings.Repeat("x", 255), "escape-"+w.namespace
	apply(t, w.classOf("nested", w.role("matrix"), `
- objectName: api-token
- {objectName: a/b/c/d/e/f, secretKey: api-token}
- {objectName: `+long+`/x, secretKey: api-token}
`), w.podYAML("app", "matrix", "nested", secretName))
	invalid := []string{"../" + escape, "a/../../" + escape, "/tmp/" + escape, ".", "..data", "a//b", "x" + long}
	objects := ""
	for _, path := range invalid {
		objects += fmt.Sprintf("- {objectName: %q, secretKey: api-token}\n", path)
	}
	objects += "- {objectName: file, secretKey: api-token}\n- {objectName: file/in-a-file, secretKey: api-token}\n- {objectName: file, secretKey: secrets.json}\n"
	apply(t, w.classOf("invalid", w.role("matrix"), objects), w.podYAML("stuck", "matrix", "invalid", secretName))

	w.waitReady(t, "app")
	for _, file := range []string{"api-token", "a/b/c/d/e/f", long + "/x"} {
		if got := w.sh(t, "app", "cat /secrets/"+file); got != firstToken {
			t.Errorf("the pod reads %q in %s", got, file)
		}
	}
	var texts []string
	for n := range invalid {
		texts = append(texts, fmt.Sprintf("objects[%d].objectName", n))
	}
	w.checkStuck(t, "stuck", slices.Concat([]string{"code = InvalidArgument", `"file/in-a-file" is under "file"`, "objects[9].objectName"}, texts)...)
	if found := onNodeLines(t, "find", "/etc", "/run", "/tmp", "/var", "-path", "/var/lib/containerd", "-prune", "-o", "-name", escape, "-print"); len(found) > 0 {
		t.Errorf("there is %q", found)
	}
	pod, err := shared.Client.CoreV1().Pods(w.namespace).Get(t.Context(), "stuck", getOptions)
	if err != nil {
		t.Fatal(err)
	}
	if found := onNodeLines(t, "find", "/var/lib/kubelet/pods/"+string(pod.UID)+"/volumes", "-type", "f", "-not", "-name", "vol_data.json"); len(found) > 0 {
		t.Errorf("the volume has %q", found)
	}
}

// checkLarge has a Secret of as much as the API server takes, once and five times in a
// volume, which the driver takes, and six times, which it would not.
func checkLarge(t *testing.T, w *world) {
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
	command(t, w.author, shared.Kubeconfig, "encrypt", secretName, "-n", w.namespace, "--transit-key", w.key, "--from-file", "api-token="+file)
	if n := len(w.secret(t, secretName).Data["api-token"]); n < ciphertext.MaxSecretSize-16 {
		t.Errorf("the ciphertext has %d bytes, and %d could be", n, ciphertext.MaxSecretSize)
	}
	times := func(n int) string {
		objects := "- objectName: api-token\n"
		for i := range n - 1 {
			objects += fmt.Sprintf("- {objectName: %d, secretKey: api-token}\n", i+1)
		}
		return objects
	}
	role := w.role("matrix")
	apply(t, w.classOf("five", role, times(5)), w.podYAML("app", "matrix", "five", secretName),
		w.classOf("six", role, times(6)), w.podYAML("stuck", "matrix", "six", secretName))
	w.waitReady(t, "app")
	sum := sha256.Sum256(plaintext)
	got := strings.Fields(w.sh(t, "app", "cd /secrets && sha256sum api-token 1 2 3 4"))
	for i := 0; i < len(got); i += 2 {
		if got[i] != hex.EncodeToString(sum[:]) {
			t.Errorf("file %s has the SHA-256 %s, want %x", got[i+1], got[i], sum)
		}
	}
	if len(got) != 10 {
		t.Errorf("sha256sum says %q", got)
	}
	w.checkStuck(t, "stuck", "code = FailedPrecondition", "more than the 4 MiB that the driver takes in one volume", "spread them over several classes and volumes")
	w.waitTries(t, "stuck", 2) // none of which counts as done
	w.checkWaiting(t, "stuck")
}
