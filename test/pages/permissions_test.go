package pages_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// permission is a row of the table of docs/permissions.md.
type permission struct {
	command string
	kube    []string // "get secrets"
	vault   []string // "read transit/keys/matrix"
	all     bool     // the rights must be those of all namespaces
}

var code = regexp.MustCompile("`([^`]+)`")

func permissionsOf(t *testing.T, text string) (rows []permission) {
	t.Helper()
	words := func(cell string) (found []string) {
		for _, m := range code.FindAllStringSubmatch(cell, -1) {
			found = append(found, m[1])
		}
		return found
	}
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 3 || !strings.Contains(cells[0], "`secretmanager ") {
			continue
		}
		p := permission{words(cells[0])[0], words(cells[1]), words(cells[2]), strings.Contains(cells[1], "all namespaces")}
		if len(p.kube) == 0 && cells[1] != "none" || len(p.vault) == 0 && strings.TrimSpace(cells[2]) != "none" {
			t.Errorf("a row without rights must have none: %s", line)
		}
		rows = append(rows, p)
	}
	return rows
}

// kubeconfigOf writes a kubeconfig for a service account.
func (g *guide) kubeconfigOf(namespace, account string) (path string) {
	g.t.Helper()
	token := g.API.ServiceAccountToken(g.t, namespace, account, "", time.Hour)
	path = filepath.Join(g.t.TempDir(), account)
	g.must(fmt.Sprintf(`cp "$KUBECONFIG" '%[1]s'
		KUBECONFIG='%[1]s' kubectl config set-credentials account --token=%[2]s
		KUBECONFIG='%[1]s' kubectl config set-context --current --user=account --namespace=default`, path, token))
	return path
}

// grant gives the service account demo/user these rights and no others, and returns a Vault token with these rights.
func (g *guide) grant(kube, vault []string, all bool) (token string) {
	g.t.Helper()
	rules := []rbacv1.PolicyRule{}
	for _, right := range kube {
		verb, resource, _ := strings.Cut(right, " ")
		rules = append(rules, rbacv1.PolicyRule{Verbs: []string{verb}, Resources: []string{resource},
			APIGroups: []string{""}})
	}
	rbac, ctx := g.Kube.RbacV1(), g.t.Context()
	everywhere, here := rules, rules
	if all {
		here = nil
	} else {
		everywhere = nil
	}
	_, err := rbac.ClusterRoles().Update(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "user"},
		Rules: everywhere}, metav1.UpdateOptions{})
	g.Must(err)
	_, err = rbac.Roles("demo").Update(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "user", Namespace: "demo"},
		Rules: here}, metav1.UpdateOptions{})
	g.Must(err)
	policy := "# nothing\n"
	for _, right := range vault {
		capability, path, _ := strings.Cut(right, " ")
		policy += fmt.Sprintf("path %q { capabilities = [%q] }\n", path, capability)
	}
	response, err := g.Vault.Do(ctx, http.MethodPost, "auth/token/create", g.Vault.RootToken,
		map[string]any{"policies": []string{g.Policy(policy)}, "no_default_policy": true})
	g.Must(err)
	return response.Auth.ClientToken
}

// attempts runs the commands of the table.
type attempts struct {
	*guide
	kubeconfig string
	manifest   string        // ciphertext of version 1, of a key with two versions
	secret     corev1.Secret // of the manifest
	directory  string
}

// prepare creates what the commands need, and undoes what an earlier attempt did. If version 1 of the key is retired,
// no Secret has it.
func (a *attempts) prepare(retired bool) {
	a.t.Helper()
	secrets, ctx := a.Kube.CoreV1().Secrets("demo"), a.t.Context()
	for _, name := range []string{"matrix-secrets", "new", "plain"} {
		if err := secrets.Delete(ctx, name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
			a.Must(err)
		}
	}
	if !retired {
		a.CreateSecret(&a.secret)
	}
	a.CreateSecret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "plain", Namespace: "demo"},
		StringData: map[string]string{"a": "b"}})
	a.Must(os.WriteFile(filepath.Join(a.directory, "matrix-secrets.yaml"), []byte(a.manifest), 0o600))
	oldest := 1
	if retired {
		oldest = 2
	}
	a.Write("transit/keys/matrix/config", map[string]any{"min_decryption_version": oldest})
}

// try runs the command of a row with these rights.
func (a *attempts) try(p permission, kube, vault []string) (exit int, output string) {
	a.t.Helper()
	a.prepare(strings.Contains(p.command, " trim "))
	token := a.grant(kube, vault, p.all)
	words := strings.Fields(p.command)
	cmd := exec.CommandContext(a.t.Context(), filepath.Join(a.bin, words[0]), words[1:]...)
	cmd.Dir = a.directory
	cmd.Env = []string{"KUBECONFIG=" + a.kubeconfig, "VAULT_ADDR=" + a.Vault.Address, "VAULT_TOKEN=" + token,
		"HOME=" + a.dir, "EDITOR=sed -i s/1/2/", "PATH=/usr/bin:/bin", "SECRETMANAGER_SETTLE=0s"}
	out, err := cmd.CombinedOutput()
	if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) {
		a.Must(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// checkIncomplete checks the outcome of a command without one of its rights.
func (a *attempts) checkIncomplete(p permission, right string, exit int, output string) {
	a.t.Helper()
	if exit != 1 && !strings.Contains(output, "unknown") {
		a.t.Errorf("%s without %q: exit code %d\n%s", p.command, right, exit, output)
	}
}

// TestPermissions runs each command of the table of docs/permissions.md as a service account with exactly the rights of
// its row, and without each of them: then it must fail, or say that something is unknown.
func TestPermissions(t *testing.T) {
	g := newGuide(t)
	g.afterwards("kubectl delete clusterrole,clusterrolebinding user")
	g.must(`kubectl -n demo create serviceaccount user
		kubectl create clusterrole user --verb=get --resource=pods
		kubectl create clusterrolebinding user --clusterrole=user --serviceaccount=demo:user
		kubectl -n demo create role user --verb=get --resource=pods
		kubectl -n demo create rolebinding user --role=user --serviceaccount=demo:user
		secretmanager vault-setup --transit-key matrix -n demo --service-account matrix --apply
		secretmanager encrypt matrix-secrets -n demo --transit-key matrix --from-literal a=1 \
			--dry-run=client -o yaml > saved.yaml
		vault write -f transit/keys/matrix/rotate`)
	a := &attempts{guide: g, kubeconfig: g.kubeconfigOf("demo", "user"), directory: t.TempDir(),
		manifest: g.must("cat saved.yaml")}
	g.Must(yaml.Unmarshal([]byte(a.manifest), &a.secret))
	rows := permissionsOf(t, g.text("docs/permissions.md", "## Each command"))
	if len(rows) < 12 {
		t.Fatalf("the table has %d commands", len(rows))
	}
	verbs := map[string]bool{}
	for _, p := range rows {
		verbs[strings.Fields(p.command)[1]] = true
		without := func(rights []string, i int) []string { return slices.Delete(slices.Clone(rights), i, i+1) }
		for i, right := range p.kube {
			exit, out := a.try(p, without(p.kube, i), p.vault)
			a.checkIncomplete(p, right, exit, out)
		}
		for i, right := range p.vault {
			exit, out := a.try(p, p.kube, without(p.vault, i))
			a.checkIncomplete(p, right, exit, out)
		}
		want := 0
		if strings.Contains(p.command, "--check") || strings.Contains(p.command, "--simulate-retire") {
			want = 3 // something is below the target
		}
		if exit, out := a.try(p, p.kube, p.vault); exit != want {
			t.Errorf("%s with exactly the rights of the page: exit code %d\n%s", p.command, exit, out)
		}
	}
	for _, verb := range []string{"encrypt", "edit", "verify", "rewrap", "lint", "status", "trim"} {
		if !verbs[verb] {
			t.Errorf("the table has no command of %s", verb)
		}
	}
}

// TestReadyRoles runs the blocks of docs/permissions.md, and then the commands of each role as a service account with
// exactly that role.
func TestReadyRoles(t *testing.T) {
	g := newGuide(t)
	g.afterwards("kubectl delete -f on-call.yaml\nkubectl delete clusterrolebinding secretmanager-on-call")
	g.must(`kubectl apply -k manifests > /dev/null
		for account in on-call rotate author; do kubectl -n demo create serviceaccount $account; done`)
	g.words = map[string]string{"--group=on-call": "--serviceaccount=demo:on-call",
		"--user=alice": "--serviceaccount=demo:rotate"}
	shells, _ := g.run(g.text("docs/permissions.md", ""), nil)
	if shells != 4 {
		t.Errorf("%d blocks were run", shells)
	}
	as := func(account, policy string, commands ...string) {
		t.Helper()
		response, err := g.Vault.Do(t.Context(), http.MethodPost, "auth/token/create", g.Vault.RootToken,
			map[string]any{"policies": []string{policy}, "no_default_policy": true})
		g.Must(err)
		for _, command := range commands {
			g.must(fmt.Sprintf("(\nexport KUBECONFIG='%s' VAULT_TOKEN=%s\n%s\n)", g.kubeconfigOf("demo", account),
				response.Auth.ClientToken, command))
		}
	}
	g.must("(\nexport VAULT_TOKEN=none KUBECONFIG=none\n" +
		"secretmanager vault-setup --transit-key matrix -n demo --service-account matrix > /dev/null\n)")
	as("author", "secretmanager-setup",
		"secretmanager vault-setup --transit-key matrix -n demo --service-account matrix --apply")
	g.must("kubectl apply -f author.yaml\n" +
		"kubectl -n demo create rolebinding author --role=secretmanager-author --serviceaccount=demo:author")
	as("author", "secretmanager-author-matrix",
		"secretmanager encrypt matrix-secrets -n demo --transit-key matrix --from-literal a=b",
		"secretmanager encrypt matrix-secrets -n demo --from-literal c=d")
	as("rotate", "secretmanager-rotator-matrix",
		"secretmanager rotate --transit-key matrix -n demo --rotate=always",
		"secretmanager rotate --transit-key matrix -n demo --rotate=never")
	as("on-call", "secretmanager-on-call",
		"secretmanager status -n demo",
		"secretmanager verify matrix-secrets -n demo",
		"! kubectl -n default get secrets",
		"! secretmanager encrypt matrix-secrets -n demo --from-literal a=b",
		"! vault write -field=plaintext transit/decrypt/matrix ciphertext=vault:v1:AAAA")
}
