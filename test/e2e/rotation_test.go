package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

// watching is the command of a watcher: it reads its files in a loop, prints a word when
// they changed, and counts the rounds.
const watching = `read() { cat /secrets/secrets.json /secrets/api-token /secrets/db/password; }; was=$(read); n=0; ` +
	`while true; do test \"$(read)\" = \"$was\" || echo LOST; n=$((n+1)); echo $n > /tmp/rounds; sleep 0.05; done`

// watcher is a pod that detects when one of its files is missing, empty or different, even
// briefly.
func (f *fixture) watcher(name string) string {
	return strings.Replace(f.podYAML(name, "matrix", "matrix", secretName), "exec sleep infinity", watching, 1)
}

// waitRounds waits until a watcher has read its files n more times.
func (f *fixture) waitRounds(t *testing.T, pod string, more int) {
	t.Helper()
	rounds := func(ctx context.Context) (int, error) {
		out, err := shared.Exec(ctx, f.namespace, pod, "", "cat", "/tmp/rounds")
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(out))
	}
	first := -1
	err := cluster.Wait(t.Context(), time.Minute, pod+" to read its files",
		func(ctx context.Context) (bool, string, error) {
			n, err := rounds(ctx)
			if err == nil && first < 0 {
				first = n
			}
			return err == nil && n >= first+more, fmt.Sprintf("%d rounds", n), err
		})
	if err != nil {
		t.Fatal(err)
	}
}

// keyReport has the fields of the rotator's report about a key that the tests check.
type keyReport struct {
	Before, After, Target, Rewrapped int
	Unresolved                       struct{ Count int }
	Retire                           struct {
		Blocked    string
		WouldBreak []struct{ Namespace, Name, Entry string }
	}
}

// keyReport returns the report of the last run about the key.
func (f *fixture) keyReport(t *testing.T) (k keyReport) {
	t.Helper()
	for _, m := range rotatorState(t, system) {
		if text, ok := m.Data["transit__"+f.key+"_report"]; ok {
			if err := json.Unmarshal([]byte(text), &k); err != nil {
				t.Fatalf("the report of %s: %v in %s", f.key, err, text)
			}
			return k
		}
	}
	t.Fatalf("the state has no report of %s", f.key)
	return k
}

// checkVersion checks the key version of each entry.
func (f *fixture) checkVersion(t *testing.T, want int) {
	t.Helper()
	for entry, text := range f.secret(t, secretName).Data {
		if v, err := ciphertext.Version(text); v != want || err != nil {
			t.Errorf("%s/%s has version %d, want %d (%v)", f.namespace, entry, v, want, err)
		}
	}
}

// TestRotationOfThreeNamespaces checks that one Job of the CronJob rotates the keys of three
// namespaces, and that a later one rewraps their Secrets, when backups of Vault may have the new
// versions, while pods in each namespace read their files.
func TestRotationOfThreeNamespaces(t *testing.T) {
	t.Parallel()
	requireProduct(t)
	var args []string
	var fixtures []*fixture
	versions := map[string]map[string]string{}
	for range 3 {
		namespace := newNamespace(t)
		f := &fixture{namespace: namespace, key: namespace}
		f.setUp(t)
		command(t, f.author, shared.Kubeconfig, f.encryptArgs(t)...)
		apply(t, f.classYAML("matrix", f.role("matrix"), secretName), f.watcher("app"))
		f.allowRotator(t)
		fixtures = append(fixtures, f)
		args = append(args, "--transit-key="+f.key+"="+namespace, "--namespace="+namespace)
	}
	for _, f := range fixtures {
		f.waitReady(t, "app")
		f.waitRounds(t, "app", 1)
		versions[f.namespace] = f.objectVersions(t, "app", "matrix")
	}

	// Backups of Vault do not have the new version yet.
	runRotator(t, fixtures[0].namespace, append(slices.Clone(args), "--rotate=always", "--settle=1h")...)
	for _, f := range fixtures {
		if k := f.keyReport(t); k.Before != 1 || k.After != 2 || k.Target != 1 || k.Rewrapped != 0 {
			t.Errorf("before the new version is old enough, the report of %s is %+v", f.key, k)
		}
		f.checkVersion(t, 1)
	}

	runRotator(t, fixtures[0].namespace, append(args, "--rotate=never", "--settle=0s")...)
	for _, f := range fixtures {
		if k := f.keyReport(t); k.Before != 2 || k.After != 2 || k.Target != 2 || k.Rewrapped != 2 ||
			k.Unresolved.Count != 0 {
			t.Errorf("the report of %s is %+v", f.key, k)
		}
		if info := f.keyInfo(t); info.Latest != 2 || info.MinDec != 1 {
			t.Errorf("key %s is %+v", f.key, info)
		}
		f.checkVersion(t, 2)
	}
	// The exporter serves the same.
	exporters, err := shared.Client.CoreV1().Pods(system).
		List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=secretmanager-exporter"})
	if err != nil || len(exporters.Items) == 0 {
		t.Fatalf("%d exporters, %v", len(exporters.Items), err)
	}
	page := metrics(t, system, exporters.Items[0].Name, 9090)
	for _, f := range fixtures {
		want := fmt.Sprintf(`secretmanager_rotation_key_target_version{transit_key=%q,transit_mount="transit"} 2`, f.key)
		if !strings.Contains(page, "\n"+want+"\n") {
			t.Errorf("the exporter does not say %s", want)
		}
	}
	// The kubelet passes the new ciphertext to the provider, and nothing changes.
	t.Run("republished", func(t *testing.T) {
		for _, f := range fixtures {
			t.Run(f.key, func(t *testing.T) {
				t.Parallel()
				f.waitRepublish(t, "app")
				f.waitRounds(t, "app", 10)
				f.checkStarted(t, "app", withFiles) // once, without lost files since
				f.checkFiles(t, "app", firstToken)
				if diff := cmp.Diff(versions[f.namespace], f.objectVersions(t, "app", "matrix")); diff != "" {
					t.Errorf("object versions (-before +after):\n%s", diff)
				}
			})
		}
	})
	// Check the watcher itself: it detects a deleted file.
	f := fixtures[0]
	pod, err := shared.Client.CoreV1().Pods(f.namespace).Get(t.Context(), "app", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	file := "/var/lib/kubelet/pods/" + string(pod.UID) + "/volumes/kubernetes.io~csi/secrets/mount/api-token"
	if out, err := shared.OnNode(t.Context(), cluster.ControlPlane, "rm", file).CombinedOutput(); err != nil {
		t.Fatalf("removing the file: %v\n%s", err, out)
	}
	err = cluster.Wait(t.Context(), time.Minute, "the watcher to notice", func(ctx context.Context) (bool, string, error) {
		log, err := shared.Logs(ctx, f.namespace, "app", "")
		return strings.Contains(log, "LOST\n"), log, err
	})
	if err != nil {
		t.Fatal(err)
	}
}
