package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/async"
)

// TestExport scrapes the exporter between runs of the real program. The exporter has exactly
// the permissions of its manifest.
func TestExport(t *testing.T) {
	const account, state = "secretmanager-exporter", "export-state"
	f := newFixture(t)
	admin, app := f.Kube, f.Namespace
	f.API.CreateServiceAccount(t, f.state, account)
	f.API.CreateNamespace(t, state)
	applyRBAC(t, admin, "../exporter/role.yaml", state)
	config := rest.AnonymousClientConfig(f.API.Config)
	config.BearerToken = f.API.ServiceAccountToken(t, f.state, account, "", time.Hour)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var stderr async.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"export", "--metrics-addr=127.0.0.1:0", "--state-namespace=" + state,
			"--kubeconfig=" + writeKubeconfig(t, config)}, os.Getenv, io.Discard, &stderr)
	}()
	var address []string
	async.Wait(t, "it listens", func() bool {
		address = regexp.MustCompile(`address=(\S+)`).FindStringSubmatch(stderr.String())
		return address != nil
	})
	scrape := func() string {
		t.Helper()
		answer, err := http.Get("http://" + address[1] + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("HTTP %d, %v", answer.StatusCode, err)
		}
		return string(text)
	}
	check := func(when string, wants ...string) {
		t.Helper()
		page := scrape()
		for _, want := range wants {
			if unwanted, found := strings.CutPrefix(want, "!"); found {
				if strings.Contains(page, "secretmanager_rotation_"+unwanted) {
					t.Errorf("%s: unexpected %s", when, unwanted)
				}
			} else if !strings.Contains(page, "\nsecretmanager_rotation_"+want+"\n") {
				t.Errorf("%s: no %s in\n%s", when, want, regexp.MustCompile(`(?m)^secretmanager_.*$`).FindAllString(page, -1))
			}
		}
	}
	check("before the first run", `read_success{object="configmap"} 1`, `read_success{object="cronjob"} 1`, "!last_run",
		"!due", "!suspended")

	text, err := os.ReadFile("../../manifests/rotator/cronjob.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cron batchv1.CronJob
	if err := yaml.UnmarshalStrict(text, &cron); err != nil {
		t.Fatal(err)
	}
	suspend := true
	cron.Spec.Suspend = &suspend
	if _, err := admin.BatchV1().CronJobs(state).Create(t.Context(), &cron, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	check("with a CronJob", "suspended 1", "!last_run")
	if !regexp.MustCompile(`\nsecretmanager_rotation_due_timestamp_seconds \d`).MatchString(scrape()) {
		t.Error("the time of the first run is missing")
	}

	f.CreateNamespace(state)
	f.store(app, "good", "fixed")
	rotate := func(want int) {
		t.Helper()
		f.RotateKey()
		code, stdout, stderr := call(t.Context(), f.env(), "--kubeconfig="+f.API.Kubeconfig,
			"--state-namespace="+state, "--transit-key="+f.Key, "-n="+app, "--rotate=never", "--settle=0s",
			"--retire", "--only-user", "--scheduled")
		if code != want {
			t.Fatalf("code %d: %s%s", code, stdout, stderr)
		}
	}
	names := `transit_key="` + f.Key + `",transit_mount="transit"}`
	key := "{" + names
	labels := func(label string) string { return `{` + label + `,` + names }
	rotate(0)
	check("after a complete run", `last_run_result{result="done"} 1`, "key_failed"+labels(`reason=""`)+" 0",
		"key_target_version"+key+" 2", "key_oldest_version"+key+" 2",
		"key_min_decryption_version"+key+" 1", "key_secrets"+key+" 2", "key_entries"+labels(`state="current"`)+" 2",
		"key_entries"+labels(`state="failed"`)+" 0", "unassigned 0")

	f.makeImmutable(app, "fixed")
	rotate(1)
	check("after an incomplete run", `last_run_result{result="incomplete"} 1`, `last_run_result{result="done"} 0`,
		"key_target_version"+key+" 3", "key_oldest_version"+key+" 2",
		"key_entries"+labels(`state="current"`)+" 1", "key_entries"+labels(`state="failed"`)+" 1",
		"key_retirement_blocked"+labels(`reason="unlisted"`)+" 1")

	// It has no other permissions.
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	own := []string{"get cronjobs.batch/secretmanager-rotator"}
	for _, name := range rotator.StateNames() {
		own = append(own, "get configmaps/"+name)
	}
	slices.Sort(own)
	for namespace, may := range map[string][]string{
		state: own, app: nil,
		rotator.DefaultStateNamespace: nil, "": nil,
	} {
		if diff := cmp.Diff(may, rights(t.Context(), t, kube, namespace)); diff != "" {
			t.Errorf("permissions in namespace %q (-want +got):\n%s", namespace, diff)
		}
	}

	// Without permissions it serves no old metrics.
	if err := admin.RbacV1().RoleBindings(state).Delete(t.Context(), account, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	async.Wait(t, "the permissions are revoked", func() bool {
		return strings.Contains(scrape(), `read_success{object="cronjob"} 0`)
	})
	check("without permissions", `read_success{object="configmap"} 0`, "!last_run", "!key_", "!due", "!suspended")
	if !strings.Contains(stderr.String(), "check that this identity may get ConfigMap secretmanager-rotation") {
		t.Errorf("log: %s", stderr.String())
	}

	stop()
	if code := <-ended; code != 0 || strings.Contains(stderr.String(), "hunter2") {
		t.Errorf("code %d, log %s", code, stderr.String())
	}
	// Other tests of the package list all namespaces.
	if err := admin.CoreV1().Secrets(app).DeleteCollection(t.Context(), metav1.DeleteOptions{},
		metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
}

func TestExportUsage(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		code int
		want []string
	}{
		"help": {[]string{"--help"}, 0, []string{"--metrics-addr address", `(default "secretmanager-rotator")`,
			"--log-level"}},
		"unknown flag": {[]string{"--vault-addr=x"}, 2, []string{"unknown flag: --vault-addr"}},
		"all at once": {[]string{"now", "--metrics-addr=", "--log-level=loud", "--log-format=xml"}, 2,
			[]string{`unexpected arguments: ["now"]`, "--metrics-addr: must not be empty",
				`--log-level: invalid value "loud"`, `--log-format: invalid value "xml"`}},
		"kubeconfig is missing": {[]string{"--kubeconfig=/nowhere"},
			1, []string{"finding the Kubernetes API server", "/nowhere"}},
		"no such address": {[]string{"--metrics-addr=256.0.0.1:0", "--kubeconfig=KUBECONFIG"}, 1,
			[]string{"listening for metrics"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"export"}
			for _, arg := range test.args {
				args = append(args,
					strings.ReplaceAll(arg, "KUBECONFIG", writeKubeconfig(t, &rest.Config{Host: "http://127.0.0.1:1"})))
			}
			code, stdout, stderr := call(t.Context(), nil, args...)
			if code != test.code || stdout != "" {
				t.Errorf("code %d, stdout %q", code, stdout)
			}
			for _, want := range test.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q is not in:\n%s", want, stderr)
				}
			}
		})
	}
}

// TestExportManifest verifies that the program accepts the flags of the Deployment, and that
// the pod has no more permissions on its node than it needs.
func TestExportManifest(t *testing.T) {
	text, err := os.ReadFile("../../manifests/exporter/deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var deployment appsv1.Deployment
	if err := yaml.UnmarshalStrict(text, &deployment); err != nil {
		t.Fatal(err)
	}
	pod := deployment.Spec.Template.Spec
	container := pod.Containers[0]
	if container.Args[0] != exportVerb {
		t.Fatalf("arguments: %q", container.Args)
	}
	o, err := parseExport(container.Args[1:], io.Discard)
	if err != nil {
		t.Fatalf("flags: %v", err)
	}
	if len(container.Ports) != 1 || container.Ports[0].Name != "metrics" ||
		!strings.HasSuffix(o.metricsAddr, ":9090") || container.Ports[0].ContainerPort != 9090 {
		t.Errorf("it listens at %s, and the ports are %+v", o.metricsAddr, container.Ports)
	}
	for _, probe := range []string{container.ReadinessProbe.HTTPGet.Path, container.LivenessProbe.HTTPGet.Path} {
		if probe != "/healthz" {
			t.Errorf("a probe has the path %s", probe)
		}
	}
	var cron batchv1.CronJob
	if text, err = os.ReadFile("../../manifests/rotator/cronjob.yaml"); err != nil ||
		yaml.UnmarshalStrict(text, &cron) != nil || cron.Name != o.cronJob {
		t.Errorf("%v: the CronJob is %q, and the flag %q", err, cron.Name, o.cronJob)
	}
	if len(pod.Volumes) > 0 || len(container.EnvFrom) > 0 {
		t.Error("it has volumes or environment that it does not need")
	}
	checkHardened(t, pod, container)
}
