package e2e

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

// The driver has a test suite for providers, with a file of cases for each: test/bats in
// its sources. TestDriver is this suite for our provider. Each case has its original
// title, without the name of the provider.

// A driverCase is a case of the suite.
type driverCase struct {
	title string
	run   func(*testing.T)
}

// driverScenarios groups the cases. Each case builds on those before it.
var driverScenarios = []struct {
	name  string
	cases func(*driverFixture) []driverCase
}{
	{"inline volume", (*driverFixture).inlineVolume},
	{"inline volume of a v1alpha1 class", (*driverFixture).inlineVolumeV1alpha1},
	{"sync", (*driverFixture).sync},
	{"namespaces", (*driverFixture).namespaces},
	{"several classes", (*driverFixture).severalClasses},
	{"rotation", (*driverFixture).rotation},
}

// sameAs maps titles of cases that have two titles in the suite to the title used here.
var sameAs = map[string]string{
	"Sync with K8s secrets - delete deployment, check secret is deleted": "Sync with K8s secrets - delete " +
		"deployment, check owner ref updated, check secret deleted",
	"configure openbao": "setup vault",
}

// notOurs has the cases that do not test a provider, with the reason.
var notOurs = map[string]string{
	"setup mock provider validation config":             "sets up the provider that the suite brings along",
	"secretproviderclasses crd is established":          "is of the driver's installation",
	"secretproviderclasspodstatuses crd is established": "is of the driver's installation",
	"Test rbac roles and role bindings exist":           "is of the driver's installation",
}

func TestDriver(t *testing.T) {
	t.Parallel()
	requireProduct(t)
	for _, scenario := range driverScenarios {
		t.Run(scenario.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range scenario.cases(newDriverFixture(t)) {
				if !t.Run(c.title, c.run) {
					t.Fatal("the cases after it need this one")
				}
			}
		})
	}
}

// TestDriverTitles compares our cases with the sources of the tested driver, so that it
// fails if a new version has new cases.
func TestDriverTitles(t *testing.T) {
	t.Parallel()
	dir, err := cluster.DriverSources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]bool{}
	for _, scenario := range driverScenarios {
		for _, c := range scenario.cases(&driverFixture{}) {
			ours[c.title] = true
		}
	}
	// The name of the provider in each file, in its spelling.
	provider := regexp.MustCompile(` (vault|openbao|e2e-provider v1|e2e-provider|e2e provier) `)
	theirs := map[string]bool{}
	for _, file := range []string{"vault.bats", "openbao.bats", "e2e-provider.bats"} {
		text, err := os.ReadFile(filepath.Join(dir, "test", "bats", file))
		if err != nil {
			t.Fatal(err)
		}
		titles := regexp.MustCompile(`(?m)^@test "(.+)" \{$`).FindAllStringSubmatch(string(text), -1)
		if len(titles) < 10 {
			t.Errorf("%s has %d cases: is it written in another way now?", file, len(titles))
		}
		for _, m := range titles {
			title := provider.ReplaceAllString(m[1], " ")
			theirs[title] = true
			if other, ok := sameAs[title]; ok {
				title = other
			}
			if !ours[title] && notOurs[title] == "" {
				t.Errorf("%s has the case %q, and we have not", file, title)
			}
		}
	}
	for _, titles := range []map[string]bool{ours, keys(sameAs), keys(notOurs)} {
		for title := range titles {
			if !theirs[title] {
				t.Errorf("no file of the suite has the case %q", title)
			}
		}
	}
}

func keys(m map[string]string) map[string]bool {
	set := map[string]bool{}
	for key := range m {
		set[key] = true
	}
	return set
}

// driverFixture is the fixture of one scenario of the driver's suite.
type driverFixture struct {
	fixture
	test *testing.T   // the scenario, whose end deletes what its cases created
	own  *ownProvider // nil if the scenario has none
}

func newDriverFixture(t *testing.T) *driverFixture {
	namespace := newNamespace(t)
	return &driverFixture{fixture: fixture{namespace: namespace, key: namespace}, test: t}
}

// providerName returns the name of the provider for a class.
func (f *fixture) providerName() string { return cmp.Or(f.provider, "secretmanager") }

// token returns a unique secret.
func (d *driverFixture) token() string { return "only-in-" + d.namespace }

// key returns binary data.
var keyBytes = func() []byte {
	all := make([]byte, 256)
	for n := range all {
		all[n] = byte(n)
	}
	return all
}()

// setUpVault creates key, roles and Secret.
func (d *driverFixture) setUpVault(t *testing.T) {
	t.Helper()
	d.setUp(t)
	command(t, d.author, shared.Kubeconfig, append(d.encryptArgs(t), "--from-literal", "key="+base64Text(keyBytes))...)
	d.change(t, d.token())
}

// change gives the token a new value.
func (d *driverFixture) change(t *testing.T, value string) {
	t.Helper()
	command(t, d.author, shared.Kubeconfig, "encrypt", secretName, "-n", d.namespace, "--from-literal", "api-token="+value)
}

// class creates a class of the suite: files, two of them in a directory, and if a
// Secret is given, a copy of them in that Secret.
func (d *driverFixture) class(version, name, synced string) string {
	text := fmt.Sprintf(`
apiVersion: secrets-store.csi.x-k8s.io/%s
kind: SecretProviderClass
metadata: {name: %s, namespace: %s}
spec:
  provider: %s
  parameters:
    roleName: %s
    secretName: %s
    transitKey: %s
    objects: |
      - objectName: api-token
      - objectName: nested/api-token
        secretKey: api-token
      - objectName: nested/db/password
        secretKey: secrets.json
        field: database.password
      - objectName: key
        encoding: base64
`, version, name, d.namespace, d.providerName(), d.role("matrix"), secretName, d.key)
	if synced == "" {
		return text
	}
	return text + fmt.Sprintf(`
  secretObjects:
  - secretName: %s
    type: Opaque
    labels: {environment: test}
    annotations: {example.org/team: zion}
    data:
    - {objectName: api-token, key: username}
    - {objectName: nested/db/password, key: nested}
`, synced)
}

// checkClass checks that the class exists.
func (d *driverFixture) checkClass(t *testing.T, name string) {
	t.Helper()
	class, err := shared.Dynamic.Resource(classes).Namespace(d.namespace).Get(t.Context(), name, getOptions)
	if err != nil {
		t.Fatal(err)
	}
	if spec, _ := class.Object["spec"].(map[string]any); spec["provider"] != d.providerName() {
		t.Errorf("the class is %v", class.Object)
	}
}

// checkText and checkKey check the files in a directory of a pod.
func (d *driverFixture) checkText(t *testing.T, pod, dir, token string) {
	t.Helper()
	for file, want := range map[string]string{"api-token": token, "nested/api-token": token,
		"nested/db/password": password} {
		if got := d.sh(t, pod, "cat "+dir+"/"+file); got != want {
			t.Errorf("%s reads %q in %s/%s, want %q", pod, got, dir, file, want)
		}
	}
	files := strings.Fields(d.sh(t, pod, "cd "+dir+" && find . -follow -type f -not -path './..*'"))
	slices.Sort(files)
	if want := []string{"./api-token", "./key", "./nested/api-token", "./nested/db/password"}; !slices.Equal(files, want) {
		t.Errorf("%s has the files %q, want %q", pod, files, want)
	}
}

func (d *driverFixture) checkKey(t *testing.T, pod, dir string) {
	t.Helper()
	if got := strings.Join(strings.Fields(d.sh(t, pod, "base64 "+dir+"/key")), ""); got != base64Text(keyBytes) {
		t.Errorf("%s reads %s in %s/key", pod, got, dir)
	}
}

// waitText waits until a pod reads a new token.
func (d *driverFixture) waitText(t *testing.T, pod, token string) {
	t.Helper()
	d.wait(t, "the new value in "+pod, func(ctx context.Context) (bool, string, error) {
		got, err := shared.Exec(ctx, d.namespace, pod, "", "cat", "/secrets/api-token")
		return got == token, got, err
	})
}
