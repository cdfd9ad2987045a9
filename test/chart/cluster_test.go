package chart

import (
	"context"
	"regexp"
	"strings"
	"testing"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// driverTest installs the chart with a CSIDriver.
type driverTest struct {
	name   string
	driver *storagev1.CSIDriver
	values string
	want   []string // texts of the error; none if the chart can be installed
}

func driverTests(t *testing.T) []driverTest {
	t.Helper()
	driver := func(edit func(*storagev1.CSIDriverSpec)) *storagev1.CSIDriver {
		d := validDriver(t)
		edit(&d.Spec)
		return d
	}
	off := false
	none := driver(func(d *storagev1.CSIDriverSpec) { d.TokenRequests = nil })
	aws := driver(func(d *storagev1.CSIDriverSpec) { d.TokenRequests = []storagev1.TokenRequest{{Audience: "aws"}} })
	vault := driver(func(d *storagev1.CSIDriverSpec) { d.TokenRequests = []storagev1.TokenRequest{{Audience: "vault"}} })
	unset := driver(func(d *storagev1.CSIDriverSpec) {
		*d = storagev1.CSIDriverSpec{PodInfoOnMount: &off, RequiresRepublish: &off}
	})
	noRepublish := driver(func(d *storagev1.CSIDriverSpec) { d.RequiresRepublish = nil })
	return []driverTest{
		{"no driver", nil, "", []string{"no CSIDriver " + driverName, "helm install csi-secrets-store", "driver.check=false",
			"--set 'enableSecretRotation=true,rotationPollInterval=0s,tokenRequests[0].audience=vault'\n"}},
		{"no driver, and additional audiences", nil, `driver: {audiences: ["", "team-a"]}`,
			[]string{"tokenRequests[0].audience=vault,tokenRequests[1].audience=,tokenRequests[2].audience=team-a'"}},
		{"no tokens", none, "", []string{
			`tokenRequests lack the audience "vault" (they have none)`, "kubectl patch csidriver", "driver.check=false"}},
		{"tokens with another audience", aws, "", []string{
			`tokenRequests lack the audience "vault" (they have "aws")`,
			`{"op":"add","path":"/spec/tokenRequests/-","value":{"audience":"vault"}}`}},
		{"another audience in the values", validDriver(t), `vault: {audience: "https://vault.example"}`,
			[]string{`lack the audience "https://vault.example" (they have "vault")`}},
		{"audiences of classes", vault, `driver: {audiences: ["", "team-a"]}`, []string{`lack the audience "", "team-a"`}},
		{"several problems", unset, "",
			[]string{"tokenRequests lack", "requiresRepublish is not true", "podInfoOnMount is not true"}},
		{"no republish", noRepublish, "", []string{"requiresRepublish is not true"}},
		{"problem of a value too", nil, `vault: {ca: {secret: a, configMap: b}}`,
			[]string{"no CSIDriver", "vault.ca.secret"}},
		{"no check", nil, `driver: {check: false}`, nil},
		{"valid driver", validDriver(t), "", nil},
		{"no driver and no provider", nil, `provider: {enabled: false}`, nil},
	}
}

// TestDriverCheck: without a driver that is configured for the product, install fails and changes nothing, and the
// command in the error is enough to fix the driver.
func TestDriverCheck(t *testing.T) {
	c := newCluster(t)
	const namespace = "check"
	c.api.CreateNamespace(t, namespace)
	t.Cleanup(func() { c.Run(context.WithoutCancel(t.Context()), "uninstall", "check", "--namespace", namespace) })
	for _, test := range driverTests(t) {
		t.Run(test.name, func(t *testing.T) {
			c.setDriver(t, test.driver)
			if test.want == nil {
				notes, err := c.Apply(t.Context(), "install", "check", namespace, test.values, "--dry-run=server")
				if err != nil {
					t.Fatal(err)
				}
				want := strings.Contains(test.values, "check: false")
				if got := strings.Contains(notes, "WARNING: The driver was not checked"); got != want {
					t.Errorf("the notes say that the driver was not checked: %v, want %v\n%s", got, want, notes)
				}
				return
			}
			_, err := c.Apply(t.Context(), "install", "check", namespace, test.values)
			if err == nil {
				t.Fatal("the chart is installed")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not contain %q:\n%v", want, err)
				}
			}
			sets, listErr := c.kube.AppsV1().DaemonSets(namespace).List(t.Context(), metav1.ListOptions{})
			if listErr != nil || len(sets.Items) > 0 {
				t.Errorf("%d DaemonSets, %v", len(sets.Items), listErr)
			}
			if test.driver != nil {
				c.fixDriver(t, err)
				if _, err := c.Apply(t.Context(), "install", "check", namespace, test.values, "--dry-run=server"); err != nil {
					t.Fatalf("after the command in the error: %v", err)
				}
			}
		})
	}
	t.Run("upgrade", func(t *testing.T) {
		c.setDriver(t, validDriver(t))
		if _, err := c.Apply(t.Context(), "install", "check", namespace, ""); err != nil {
			t.Fatal(err)
		}
		c.setDriver(t, nil)
		_, err := c.Apply(t.Context(), "upgrade", "check", namespace, "provider: {logLevel: debug}")
		if err == nil || !strings.Contains(err.Error(), "no CSIDriver") {
			t.Errorf("upgrade without a driver: %v", err)
		}
	})
	t.Run("no check without a cluster", func(t *testing.T) {
		if _, err := newHelm(t).Template(t.Context(), namespace, ""); err != nil {
			t.Error(err)
		}
	})
}

// fixDriver runs the command in an error of the check.
func (c *cluster) fixDriver(t *testing.T, problem error) {
	t.Helper()
	command := regexp.MustCompile(`kubectl patch csidriver (\S+) --type=json -p '([^']+)'`)
	patch := command.FindStringSubmatch(problem.Error())
	if patch == nil {
		t.Fatalf("the error has no command:\n%v", problem)
	}
	_, err := c.kube.StorageV1().CSIDrivers().Patch(
		t.Context(), patch[1], types.JSONPatchType, []byte(patch[2]), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}
