package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

// TestStory tests the main job. Each step builds on the previous one.
func TestStory(t *testing.T) {
	t.Parallel()
	requireProduct(t)
	namespace := newNamespace(t)
	s := &story{fixture: fixture{namespace: namespace, key: namespace}}
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"1 vault-setup gives Vault key, policies and roles", s.setUpVault},
		{"2 encrypt puts a ciphertext Secret into the cluster", s.encrypt},
		{"3 pods read their files", s.mount},
		{"4 rotate, rewrap, retire, and nobody notices", s.rotate},
		{"5 a new value reaches the running pod", s.newValue},
		{"6 moved ciphertext does not decrypt", s.moved},
	} {
		if !t.Run(step.name, step.run) {
			t.Fatal("the steps after it need this one")
		}
	}
}

type story struct {
	fixture
	old map[string][]byte // the ciphertext before the rotation
}

func (s *story) setUpVault(t *testing.T) {
	s.setUp(t)
	if info := s.keyInfo(t); !info.Derived || info.Latest != 1 {
		t.Errorf("the key is %+v", info)
	}
	output := command(t, shared.Vault.Token, "", "vault-setup", "--apply", "--transit-key", s.key, "-n", s.namespace,
		"--service-account", "matrix", "--author-service-account", s.namespace+"/author", "--retire")
	if strings.Contains(output, "created") || strings.Contains(output, "changed ") &&
		!strings.Contains(output, "unchanged") {
		t.Errorf("a second run is not without effect:\n%s", output)
	}
}

func (s *story) encrypt(t *testing.T) {
	args := s.encryptArgs(t)
	manifest := command(t, s.author, "", append(args, "-o", "yaml", "--dry-run=client")...)
	if !strings.Contains(manifest, base64.StdEncoding.EncodeToString([]byte("vault:v1:"))) ||
		strings.Contains(manifest, password) {
		t.Errorf("the manifest is\n%s", manifest)
	}
	command(t, s.author, shared.Kubeconfig, args...)

	secret := s.secret(t, secretName)
	if secret.Type != ciphertext.Type {
		t.Errorf("type %s", secret.Type)
	}
	if err := ciphertext.Validate(secret); err != nil {
		t.Error(err)
	}
	want := map[string]string{ciphertext.LabelTransitKey: s.key, ciphertext.LabelKeyVersion: "1"}
	if diff := cmp.Diff(want, secret.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	s.old = secret.Data
}

func (s *story) mount(t *testing.T) {
	apply(t, s.classYAML("matrix", s.role("matrix"), secretName),
		s.podYAML("app", "matrix", "matrix", secretName),
		s.podYAML("as-pod", "matrix", "matrix", ""))
	// The second may not read the Secret yet, and reports that.
	s.checkStuck(t, "as-pod", "matrix", "forbidden", "Role with `get`")
	s.waitReady(t, "app")
	s.checkFiles(t, "app", firstToken)

	s.allowSecret(t)
	s.waitReady(t, "as-pod")
	s.checkFiles(t, "as-pod", firstToken)
	s.waitSynced(t, firstToken)
}

// waitSynced waits until the driver has copied the token to a Kubernetes Secret.
func (s *story) waitSynced(t *testing.T, want string) {
	t.Helper()
	err := cluster.Wait(t.Context(), 3*time.Minute, "the synced Secret", func(ctx context.Context) (bool, string, error) {
		secret, err := shared.Client.CoreV1().Secrets(s.namespace).Get(ctx, "matrix-synced", metav1.GetOptions{})
		if err != nil {
			return false, "", err
		}
		return string(secret.Data["token"]) == want, "another value", nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *story) rotate(t *testing.T) {
	ctx := t.Context()
	secrets := shared.Client.CoreV1().Secrets(s.namespace)
	// Labels of others, and other Secrets, must not change.
	if _, err := secrets.Patch(ctx, secretName, types.MergePatchType, []byte(`{"metadata":{"labels":{"team":"zion"}}}`),
		metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	bystander, err := secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bystander"},
		Data: map[string][]byte{"a": []byte("b")}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before := s.secret(t, secretName)
	versions := s.objectVersions(t, "app", "matrix")

	s.allowRotator(t)
	runRotator(t, s.namespace, "--transit-key="+s.key, "--namespace="+s.namespace, "--rotate=always", "--settle=0s")

	if info := s.keyInfo(t); info.Latest != 2 || info.MinDec != 1 {
		t.Errorf("after one rotation the key is %+v", info)
	}
	after := s.secret(t, secretName)
	if diff := cmp.Diff(ciphertext.Entries(before.Data), ciphertext.Entries(after.Data)); diff != "" {
		t.Errorf("entries (-before +after):\n%s", diff)
	}
	for entry, text := range after.Data {
		if v, err := ciphertext.Version(text); v != 2 || err != nil {
			t.Errorf("entry %s has version %d, %v", entry, v, err)
		}
	}
	before.Labels[ciphertext.LabelKeyVersion], before.Annotations[ciphertext.AnnotationRewrapped] = "2", "2"
	if diff := cmp.Diff(before.Labels, after.Labels); diff != "" {
		t.Errorf("labels (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(before.Annotations, after.Annotations); diff != "" {
		t.Errorf("annotations (-before +after):\n%s", diff)
	}
	if s.secret(t, "bystander").ResourceVersion != bystander.ResourceVersion {
		t.Error("the rotator wrote to a Secret that is not its own")
	}

	// Retiring requires access to all Secrets.
	if err := shared.ApplyKustomization(ctx, "../../manifests/rotator/cluster"); err != nil {
		t.Fatal(err)
	}
	retire := func() {
		runRotator(t, s.namespace, "--transit-key="+s.key, "--rotate=never", "--settle=0s", "--retire", "--retire-after=0",
			"--only-user")
	}
	// A copy of old ciphertext in a Secret without any label, as kubectl apply leaves it.
	manifest, err := json.Marshal(&corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: secretName}, Data: s.old})
	if err != nil {
		t.Fatal(err)
	}
	forgotten := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "forgotten",
		Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: string(manifest)}}}
	if _, err := secrets.Create(ctx, forgotten, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	retire()
	k := s.keyReport(t)
	if info := s.keyInfo(t); info.MinDec != 1 || k.Retire.Blocked != "inUse" || len(k.Retire.WouldBreak) != len(s.old) ||
		k.Retire.WouldBreak[0].Name != "forgotten" {
		t.Errorf("with a copy of old ciphertext the key is %+v, and the report %+v", info, k.Retire)
	}
	if err := secrets.Delete(ctx, "forgotten", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}

	retire()
	if info := s.keyInfo(t); info.Latest != 2 || info.MinDec != 2 {
		t.Errorf("after retiring the key is %+v", info)
	}
	for entry, text := range s.old {
		err := shared.Vault.Do(ctx, http.MethodPost, "transit/decrypt/"+s.key, map[string]any{
			"ciphertext": string(text), "context": ciphertext.Strict.Context(s.namespace, secretName, entry),
		}, nil)
		if err == nil || !strings.Contains(err.Error(), "too old") {
			t.Errorf("the old text of %s: %v", entry, err)
		}
	}

	s.waitRepublish(t, "app")
	s.checkFiles(t, "app", firstToken)
	if diff := cmp.Diff(versions, s.objectVersions(t, "app", "matrix")); diff != "" {
		t.Errorf("object versions changed with the rotation (-before +after):\n%s", diff)
	}
	apply(t, s.podYAML("late", "matrix", "matrix", secretName))
	s.waitReady(t, "late")
	s.checkFiles(t, "late", firstToken)
}

func (s *story) newValue(t *testing.T) {
	before, versions := s.secret(t, secretName), s.objectVersions(t, "app", "matrix")
	command(t, s.author, shared.Kubeconfig, "encrypt", secretName, "-n", s.namespace, "--from-literal",
		"api-token="+secondToken)
	if after := s.secret(t, secretName); string(after.Data["secrets.json"]) != string(before.Data["secrets.json"]) {
		t.Error("an entry that was not named has changed")
	}
	err := cluster.Wait(t.Context(), 5*time.Minute, "the new value in the running pod",
		func(ctx context.Context) (bool, string, error) {
			got, err := shared.Exec(ctx, s.namespace, "app", "", "cat", "/secrets/api-token")
			return got == secondToken, "still the old one", err
		})
	if err != nil {
		t.Fatal(err)
	}
	s.checkFiles(t, "app", secondToken)
	// The driver writes the files first and the status after them.
	err = cluster.Wait(t.Context(), time.Minute, "the new object version", func(context.Context) (bool, string, error) {
		return s.objectVersions(t, "app", "matrix")["api-token"] != versions["api-token"], "still the old one", nil
	})
	if err != nil {
		t.Fatal(err)
	}
	current := s.objectVersions(t, "app", "matrix")
	for _, same := range []string{"secrets.json", "db/password"} {
		if current[same] != versions[same] {
			t.Errorf("the object version of %s changed, and its content did not", same)
		}
	}
	s.waitSynced(t, secondToken)
	s.checkStarted(t, "app", withFiles) // and not again
}

func (s *story) moved(t *testing.T) {
	secret := s.secret(t, secretName)
	role := s.role("matrix")
	put := func(namespace, name string, data map[string][]byte) {
		t.Helper()
		_, err := shared.Client.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: secret.Labels, Annotations: secret.Annotations},
			Type:       secret.Type, Data: data,
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}

	// Another namespace, whose app may even decrypt with the key.
	other := &fixture{namespace: newNamespace(t), key: s.key}
	other.setUp(t)
	put(other.namespace, secretName, secret.Data)
	apply(t, other.classYAML("matrix", other.role("matrix"), secretName),
		other.podYAML("thief", "matrix", "matrix", secretName))

	// Another Secret name.
	put(s.namespace, "copy", secret.Data)
	apply(t, s.classYAML("copy", role, "copy"), s.podYAML("copycat", "matrix", "copy", "copy"))

	// Another entry.
	put(s.namespace, "swapped",
		map[string][]byte{"secrets.json": secret.Data["api-token"], "api-token": secret.Data["api-token"]})
	apply(t, s.classYAML("swapped", role, secretName), s.podYAML("swapper", "matrix", "swapped", "swapped"))

	// Another service account.
	createServiceAccount(t, s.namespace, "smith")
	apply(t, s.podYAML("agent", "smith", "matrix", secretName))

	const wrongPlace = "was encrypted for another namespace, Secret or entry"
	other.checkStuck(t, "thief", wrongPlace, other.namespace+"/"+secretName+"/api-token", "check")
	s.checkStuck(t, "copycat", wrongPlace, s.namespace+"/copy/api-token", "check")
	s.checkStuck(t, "swapper", wrongPlace, `"secrets.json"`, "check")
	s.checkStuck(t, "agent", role, s.namespace+"/smith", `"vault"`, "service account name not authorized", "check")

	// The same pods start after the ciphertext is fixed.
	if err := shared.Client.CoreV1().Secrets(s.namespace).
		Delete(t.Context(), "swapped", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	put(s.namespace, "swapped", secret.Data)
	s.waitReady(t, "swapper")
	s.checkFiles(t, "swapper", secondToken)
}
