package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/test/cliscript"
	"github.com/secretmanager-io/secretmanager/test/pages"
	"github.com/secretmanager-io/secretmanager/test/programs"
)

// sopsStandIn replaces the program sops, which the tests cannot build: it reads only the name of the
// file, and prints what the test put beside it. The test does not cover sops itself.
const sopsStandIn = "#!/bin/sh\nfor file; do :; done\nexec cat \"$file.plain\"\n"

// sealedSecrets is the kind of the sealed-secrets controller, so that kubectl can delete one. The
// controller does not run, so the test does not cover what it does.
const sealedSecrets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: sealedsecrets.bitnami.com}
spec:
  group: bitnami.com
  scope: Namespaced
  names: {kind: SealedSecret, plural: sealedsecrets, singular: sealedsecret, listKind: SealedSecretList}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// TestMigrate runs the commands of docs/migrate.md with real programs: Vault, API server, kubectl and
// secretmanager. For each class that the page applies, a real provider mounts it with the token of
// the pods' service account, and the files must be those from before the migration.
func TestMigrate(t *testing.T) {
	w := cliscript.New(t)
	page, err := os.ReadFile("../../docs/migrate.md")
	check(t, err)
	bin, dir := t.TempDir(), t.TempDir()
	kubectl, err := programs.Path(t.Context(), "kubectl")
	check(t, err)
	check(t, os.Symlink(kubectl, filepath.Join(bin, "kubectl")))
	cliscript.LinkPrograms(t, bin)
	check(t, os.WriteFile(filepath.Join(bin, "sops"), []byte(sopsStandIn), 0o755))
	where, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}",
		"sigs.k8s.io/secrets-store-csi-driver").Output()
	check(t, err)
	env := append(os.Environ(), "PATH="+bin+":/usr/bin:/bin", "HOME="+dir, "KUBECONFIG="+w.API.Kubeconfig,
		"VAULT_ADDR="+w.Vault.Address, "VAULT_TOKEN="+w.Vault.RootToken,
		"CRDS="+strings.TrimSpace(string(where))+"/deploy", "NO_COLOR=1")
	sh := func(stdin, script string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "bash", "-eo", "pipefail", "-c", script)
		cmd.Dir, cmd.Env, cmd.Stdin = dir, env, strings.NewReader(stdin)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		return out.String(), err
	}
	must := func(stdin, script string) {
		t.Helper()
		if out, err := sh(stdin, script); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}

	// Not shared, as other tests list all of the cluster and Vault, or create the same objects.
	t.Cleanup(func() {
		script := "vault delete sys/mounts/kv; kubectl -n shop delete secret,secretproviderclass --all; " +
			"kubectl delete crd sealedsecrets.bitnami.com secretproviderclasses.secrets-store.csi.x-k8s.io"
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "sh", "-ec", script)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("cleaning up: %v\n%s", err, out)
		}
	})

	// The state before the migration.
	const document = `{"database": {"user": "matrix", "password": "hunter2"}}`
	w.TrustAPIServer()
	w.CreateNamespace("secretmanager-system")
	w.API.CreateServiceAccount(t, "shop", "matrix")
	must(sealedSecrets, `
		kubectl apply -f - -f "$CRDS/secrets-store.csi.x-k8s.io_secretproviderclasses.yaml"
		kubectl wait --for=condition=Established \
			crd/sealedsecrets.bitnami.com crd/secretproviderclasses.secrets-store.csi.x-k8s.io
		vault secrets enable -path=kv kv-v2 || true  # examples.txtar may have been here`)
	_, err = w.Vault.Write(t.Context(), "transit/keys/aes256-key", nil)
	check(t, err)
	answer, err := w.Vault.Do(t.Context(), http.MethodPost, "transit/encrypt/aes256-key", w.Vault.RootToken,
		map[string]any{"plaintext": base64.StdEncoding.EncodeToString([]byte(document))})
	check(t, err)
	for _, s := range []*corev1.Secret{
		{ObjectMeta: metav1.ObjectMeta{Name: "matrix-secrets"},
			Data: map[string][]byte{"secrets.json": []byte(answer.Data["ciphertext"].(string))}},
		{ObjectMeta: metav1.ObjectMeta{Name: "matrix-sealed", OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "bitnami.com/v1alpha1", Kind: "SealedSecret", Name: "matrix-sealed", UID: "1", Controller: new(true)},
		}}, StringData: map[string]string{"token": "t0ken"}},
	} {
		_, err := w.Kube.CoreV1().Secrets("shop").Create(t.Context(), s, metav1.CreateOptions{})
		check(t, err)
	}
	must("", `
		kubectl -n shop create -f - <<< '{"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret",
			"metadata": {"name": "matrix-sealed"}}'
		vault kv put kv/matrix user=neo password=trinity
		echo '{"api": {"key": "k3y"}, "region": "zion"}' > secrets.enc.yaml.plain
		printf 'A=1\nB=two\n' > app.enc.env.plain`)
	if out, err := sh("", "secretmanager encrypt matrix-sealed -n shop --transit-key aes256-key --scope none "+
		"--from-secret matrix-sealed --replace"); err == nil || !strings.Contains(out, "SealedSecret matrix-sealed") {
		t.Errorf("the page says that a Secret of the controller's is not replaced: %v\n%s", err, out)
	}

	socket, stop, err := cliscript.ServeProvider(w.API.Kubeconfig, w.Vault.Address,
		filepath.Join(bin, "secretmanager-provider"),
		filepath.Join(t.TempDir(), "log"))
	check(t, err)
	t.Cleanup(stop)
	files := map[string]map[string]string{
		"class-legacy.yaml": {"secrets.json": document}, "class-strict.yaml": {"secrets.json": document},
		"class-kv.yaml": {"db-user": "neo", "db-password": "trinity"},
	}
	// mount mounts the class as the driver does. The attribute is the provider's default, which the
	// one of the scripts does not have.
	mount := func(class string) {
		t.Helper()
		secret := regexp.MustCompile(`secretName: (\S+)`).FindStringSubmatch(read(t, filepath.Join(dir, class)))[1]
		token, _ := w.API.PodToken(t, "shop", "matrix-0", "matrix", "vault", time.Hour)
		check(t, os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o600))
		out := t.TempDir()
		must("", fmt.Sprintf(`kubectl -n shop get secret %s -o yaml > mounted.yaml
			secretmanager mount --class %s --secret mounted.yaml --socket %s --service-account-token token --out %s \
				--volume-attribute vaultAuthMountPath=kubernetes`, secret, class, socket, out))
		for name, want := range files[class] {
			if got := read(t, filepath.Join(out, name)); got != want {
				t.Errorf("%s, file %s: %q, want %q", class, name, got, want)
			}
		}
	}
	mounted := map[string]bool{}
	shells, compared, err := pages.Run(string(page), dir, func(b pages.Block) (string, error) {
		out, err := sh("", b.Text)
		if err != nil {
			return out, err
		}
		for class := range files {
			if strings.Contains(b.Text, "kubectl apply -f "+class) {
				mount(class)
				mounted[class] = true
			}
		}
		if mounted["class-legacy.yaml"] && strings.Contains(b.Text, "class-strict.yaml") {
			mount("class-legacy.yaml") // pods of both run side by side
		}
		return out, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if shells < 12 || compared < 6 || len(mounted) != len(files) {
		t.Errorf("only %d shell blocks were run, the output of %d compared, %d classes mounted", shells, compared,
			len(mounted))
	}

	// A class of vault-csi-provider is rejected, and all unknown parameters are reported.
	for _, b := range pages.Blocks(string(page)) {
		if !strings.Contains(b.Text, "provider: vault") {
			continue
		}
		check(t,
			os.WriteFile(filepath.Join(dir, "old.yaml"),
				[]byte(strings.Replace(b.Text, "provider: vault", "provider: secretmanager", 1)), 0o600))
		out, err := sh("", "secretmanager mount --class old.yaml --secret mounted.yaml --socket "+socket+
			" --service-account-token token --out out")
		for _, text := range []string{"secretName: Required value", "transitKey: Required value", "vaultCACertPath",
			"vaultAddress: ", "objects[0].secretPath", "objects[1].secretPath"} {
			if err == nil || !strings.Contains(out, text) {
				t.Errorf("the old class: %v, without %q:\n%s", err, text, out)
			}
		}
	}

	// The results of the other commands.
	for secret, want := range map[string]map[string]string{
		"matrix-unsealed": {"token": "t0ken"},
		"matrix-sops": {"api": `{"key":"k3y"}`, "region": "zion", "A": "1", "B": "two",
			"secrets.yaml": "{\"api\": {\"key\": \"k3y\"}, \"region\": \"zion\"}\n"},
	} {
		stored := w.GetSecret("shop", secret)
		if len(stored.Data) != len(want) {
			t.Errorf("%s has %d entries", secret, len(stored.Data))
		}
		for entry, text := range want {
			answer, err := w.Vault.Do(t.Context(), http.MethodPost, "transit/decrypt/shop", w.Vault.RootToken, map[string]any{
				"ciphertext": string(stored.Data[entry]),
				"context":    base64.StdEncoding.EncodeToString([]byte("strict:shop/" + secret + "/" + entry)),
			})
			check(t, err)
			got, err := base64.StdEncoding.DecodeString(answer.Data["plaintext"].(string))
			check(t, err)
			if string(got) != text && entry != "api" || entry == "api" && !strings.Contains(string(got), "k3y") {
				t.Errorf("%s, entry %s: %q, want %q", secret, entry, got, text)
			}
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	check(t, err)
	return string(text)
}

// TestMigrateNames checks that the parameters, fields and flags in the tables of docs/migrate.md exist.
func TestMigrateNames(t *testing.T) {
	page := read(t, "../../docs/migrate.md")
	_, tables, _ := strings.Cut(page, "\n## From vault-csi-provider\n")
	tables, _, _ = strings.Cut(tables, "\n## ")
	known := read(t, "../../docs/reference/parameters.md")
	flags := read(t, "../../docs/reference/flags-provider.md")
	n := 0
	for _, row := range regexp.MustCompile(`(?m)^\| .* \| (.*) \|$`).FindAllStringSubmatch(tables, -1) {
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			n++
			switch {
			case strings.HasPrefix(name[1], "--"):
				if !strings.Contains(flags, " "+name[1]+" ") {
					t.Errorf("the provider has no flag %s", name[1])
				}
			case name[1] == "tokenRequests":
			case !strings.Contains(known, "\n| `"+name[1]+"` |"):
				t.Errorf("no parameter and no field %s exists", name[1])
			}
		}
	}
	if n < 12 {
		t.Errorf("only %d names were found", n)
	}
}
