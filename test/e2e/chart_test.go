package e2e

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/chart"
	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

// chartStory installs, upgrades and uninstalls the chart with the real Helm, next to the
// installation that the other tests use.
type chartStory struct {
	fixture
	helm    *chart.Helm
	system  string // name of the release, its namespace and its provider
	before  []string
	command []string // the vault-setup of the notes
}

func TestChart(t *testing.T) {
	t.Parallel()
	helm, err := chart.NewHelm(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	helm.Kubeconfig = shared.Kubeconfig
	s := &chartStory{helm: helm, system: newNamespace(t)}
	namespace := newNamespace(t)
	s.fixture = fixture{namespace: namespace, key: namespace, provider: s.system}
	t.Cleanup(func() { // not needed after the last step
		if !t.Failed() {
			helm.Run(context.WithoutCancel(t.Context()), "uninstall", s.system, "--namespace", s.system, "--ignore-not-found")
		}
	})
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"1 install: a provider is ready, and the notes say how to go on", s.install},
		{"2 a pod reads its files", s.mount},
		{"3 the rotator rotates", s.rotate},
		{"4 upgrade: no mount is lost", s.upgrade},
		{"5 uninstall leaves nothing, and running pods keep their files", s.uninstall},
	} {
		if !t.Run(step.name, step.run) {
			t.Fatal("the steps after it need this one")
		}
	}
}

// values returns the values of the installation, with further ones of the provider.
func (s *chartStory) values(provider string) string {
	repository, tag, _ := strings.Cut(shared.Images.Product, ":")
	return fmt.Sprintf(`
fullnameOverride: %[1]s
provider: {name: %[1]s%[6]s}
image: {repository: %[2]s, tag: %[3]s}
# For development only: the test's Vault has no certificate.
vault: {address: "%[4]s", insecureHTTP: true}
rotator:
  namespaces: [%[5]s]
  transitKeys: ["%[7]s=%[5]s"]
  settle: 0s # so that the new version is used at once
  schedule: "0 0 1 1 *" # runs are started by the test
  vaultRole: %[1]s-rotator
networkPolicy: {egress: {enabled: true}}
`, s.system, repository, tag, shared.Vault.Inside, s.namespace, provider, s.key)
}

func (s *chartStory) install(t *testing.T) {
	s.before = s.everything(t)
	notes, err := s.helm.Apply(t.Context(), "install", s.system, s.system, s.values(""), "--wait", "--timeout", "4m")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", notes)
	// helm --wait has waited for the pods.
	set, err := shared.Client.AppsV1().DaemonSets(s.system).Get(t.Context(), s.system+"-provider", metav1.GetOptions{})
	if err != nil || set.Status.NumberReady == 0 || set.Status.NumberReady != set.Status.DesiredNumberScheduled {
		t.Errorf("the provider is %+v, %v", set.Status, err)
	}
	setup := regexp.MustCompile(`(?m)^ *secretmanager (vault-setup --apply .*)$`).FindStringSubmatch(notes)
	if setup == nil {
		t.Fatal("the notes do not say how to set up Vault")
	}
	s.command = strings.Fields(strings.NewReplacer("KEY", s.key, "NAMESPACE", s.namespace, "ACCOUNT", "matrix").
		Replace(setup[1]))
}

func (s *chartStory) mount(t *testing.T) {
	s.setUp(t)
	setUpLock.Lock()
	command(t, shared.Vault.Token, "", s.command...)
	setUpLock.Unlock()
	command(t, s.author, shared.Kubeconfig, s.encryptArgs(t)...)
	apply(t, s.classYAML("matrix", s.role("matrix"), secretName), s.podYAML("app", "matrix", "matrix", secretName))
	s.waitReady(t, "app")
	s.checkFiles(t, "app", firstToken)
}

func (s *chartStory) rotate(t *testing.T) {
	runCronJob(t, s.system, s.system+"-rotator", "rotate-", "--rotate=always")
	for entry, text := range s.secret(t, secretName).Data {
		if v, err := ciphertext.Version(text); v != 2 || err != nil {
			t.Errorf("entry %s has version %d, %v", entry, v, err)
		}
	}
	// The namespace belongs to the test, not to the chart.
	background := metav1.DeletePropagationBackground
	err := shared.Client.BatchV1().Jobs(s.system).
		DeleteCollection(t.Context(), metav1.DeleteOptions{PropagationPolicy: &background}, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *chartStory) upgrade(t *testing.T) {
	template := s.generation(t)
	state := s.state(t)
	end := s.startMountLoad(t, cluster.ControlPlane, s.system, 50)
	_, err := s.helm.Apply(t.Context(), "upgrade", s.system, s.system,
		s.values(", logLevel: debug, mountTimeoutSeconds: 30"), "--wait", "--timeout", "4m")
	if err != nil {
		t.Error(err)
	}
	if err := shared.WaitDaemonSet(t.Context(), s.system, s.system+"-provider"); err != nil {
		t.Error(err)
	}
	apply(t, s.podYAML("late", "matrix", "matrix", secretName))
	s.waitReady(t, "late")
	end().check(t)

	if s.generation(t) == template {
		t.Error("the upgrade changed nothing of the provider")
	}
	s.checkFiles(t, "app", firstToken)
	s.checkFiles(t, "late", firstToken)
	if diff := cmp.Diff(state, s.state(t)); diff != "" {
		t.Errorf("what the rotator keeps (-before +after the upgrade):\n%s", diff)
	}
}

// generation returns the generation of the provider's DaemonSet, which counts its changes.
func (s *chartStory) generation(t *testing.T) int64 {
	t.Helper()
	set, err := shared.Client.AppsV1().DaemonSets(s.system).Get(t.Context(), s.system+"-provider", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return set.Generation
}

// state returns the state of the rotator, which is not empty after a run.
func (s *chartStory) state(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, m := range rotatorState(t, s.system) {
		for name, text := range m.Data {
			all[m.Name+" "+name] = text
		}
	}
	if len(all) < 3 { // of the run, and two of the key
		t.Fatalf("the rotator keeps %d entries", len(all))
	}
	return all
}

func (s *chartStory) uninstall(t *testing.T) {
	if _, err := s.helm.Run(t.Context(), "uninstall", s.system, "--namespace", s.system, "--wait", "--timeout",
		"4m"); err != nil {
		t.Fatal(err)
	}
	// Pods end with a delay, and objects that they own are deleted after them.
	err := cluster.Wait(t.Context(), 3*time.Minute, "nothing of the release to be left",
		func(context.Context) (bool, string, error) {
			diff := cmp.Diff(s.before, s.everything(t))
			return diff == "", diff, nil
		})
	if err != nil {
		t.Error(err)
	}
	sockets, err := shared.OnNode(t.Context(), cluster.ControlPlane, "ls", "/var/run/secrets-store-csi-providers").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(sockets), s.system+".sock") {
		t.Errorf("the socket is left:\n%s", sockets)
	}
	for _, pod := range []string{"app", "late"} {
		s.checkFiles(t, pod, firstToken)
	}
}

// skippedKinds are kinds that no client creates, or that the API server warns of.
var skippedKinds = []string{"events", "endpoints", "componentstatuses"}

// everything returns the names of the objects in the release's namespace, and of
// others whose names contain the name of the release.
func (s *chartStory) everything(t *testing.T) (names []string) {
	t.Helper()
	lists, err := shared.Client.Discovery().ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range list.APIResources {
			if !slices.Contains(kind.Verbs, "list") || slices.Contains(skippedKinds, kind.Name) {
				continue
			}
			objects, err := shared.Dynamic.Resource(group.WithResource(kind.Name)).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatalf("listing %s: %v", kind.Name, err)
			}
			for _, o := range objects.Items {
				if o.GetNamespace() == s.system || strings.Contains(o.GetName(), s.system) {
					names = append(names, fmt.Sprintf("%s %s/%s", kind.Kind, o.GetNamespace(), o.GetName()))
				}
			}
		}
	}
	slices.Sort(names)
	return names
}
