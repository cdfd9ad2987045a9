package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
	"github.com/secretmanager-io/secretmanager/test/programs"
)

const system = cluster.ProductNamespace

// installed installs provider and rotator once.
var installed = sync.OnceValue(func() error { return shared.InstallProduct(context.Background()) })

// built is the path of the command line.
var buildSet = sync.OnceValues(func() (string, error) { return build("secretmanager", ".", "./cmd/secretmanager") })

// build builds a program from a module of the repository and returns its path.
func build(name, module, pkg string) (string, error) {
	root, err := programs.Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, ".cache", "e2e", "bin", name)
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, pkg)
	cmd.Dir = filepath.Join(root, module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", name, err, output)
	}
	return path, nil
}

// onNode builds a program, copies it to the nodes, and returns its path there.
func onNode(name, module, pkg string) (string, error) {
	path, err := build(name, module, pkg)
	if err != nil {
		return "", err
	}
	return shared.CopyToNodes(context.Background(), path)
}

// requireProduct makes sure that the product runs in the cluster.
func requireProduct(t *testing.T) {
	t.Helper()
	if err := installed(); err != nil {
		t.Fatal(err)
	}
}

// command runs the command line with a Vault token and returns its standard output. An
// empty kubeconfig means no cluster.
func command(t *testing.T, vaultToken, kubeconfig string, args ...string) string {
	t.Helper()
	path, err := buildSet()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = []string{"HOME=" + t.TempDir(), "VAULT_ADDR=" + shared.Vault.Address, "VAULT_TOKEN=" + vaultToken,
		"KUBECONFIG=" + kubeconfig}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("secretmanager %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	t.Logf("secretmanager %s\n%s", args[0], stderr.String())
	return stdout.String()
}

// vaultLogin logs in to Vault as a service account and returns the token.
func vaultLogin(t *testing.T, namespace, account, role string) string {
	t.Helper()
	jwt, err := shared.Token(t.Context(), namespace, account, "vault")
	if err != nil {
		t.Fatal(err)
	}
	var response struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	err = shared.Vault.Do(t.Context(), http.MethodPost, "auth/kubernetes/login",
		map[string]any{"role": role, "jwt": jwt}, &response)
	if err != nil {
		t.Fatal(err)
	}
	return response.Auth.Token
}

// rotating serializes runs, as the CronJob's concurrencyPolicy does.
var rotating sync.Mutex

// runRotator creates a Job from the CronJob, as `kubectl create job --from` does, with
// additional arguments, waits for its end and returns its log. The Job must succeed.
func runRotator(t *testing.T, namespace string, args ...string) string {
	t.Helper()
	log, failed := runJob(t, namespace, args...)
	if failed {
		t.Fatalf("the rotator failed:\n%s", log)
	}
	return log
}

// runJob does the same, and also reports whether the Job failed.
func runJob(t *testing.T, namespace string, args ...string) (log string, failed bool) {
	t.Helper()
	rotating.Lock()
	defer rotating.Unlock()
	return waitCronJob(t, system, "secretmanager-rotator", "rotate-"+namespace+"-", args...)
}

// runCronJob does the same as runRotator with a CronJob in a namespace. The Job's name has the prefix.
func runCronJob(t *testing.T, system, name, prefix string, args ...string) string {
	t.Helper()
	log, failed := waitCronJob(t, system, name, prefix, args...)
	if failed {
		t.Fatalf("the rotator failed:\n%s", log)
	}
	return log
}

func waitCronJob(t *testing.T, system, name, prefix string, args ...string) (log string, failed bool) {
	t.Helper()
	ctx := t.Context()
	cron, err := shared.Client.BatchV1().CronJobs(system).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{GenerateName: prefix,
			Annotations: map[string]string{"cronjob.kubernetes.io/instantiate": "manual"}},
		Spec: *cron.Spec.JobTemplate.Spec.DeepCopy(),
	}
	none := int32(0)
	job.Spec.BackoffLimit = &none // report the first failure instead of retrying
	container := &job.Spec.Template.Spec.Containers[0]
	container.Args = append(container.Args, args...)
	job, err = shared.Client.BatchV1().Jobs(system).Create(ctx, job, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = cluster.Wait(ctx, 2*time.Minute, "Job "+job.Name, func(ctx context.Context) (bool, string, error) {
		now, err := shared.Client.BatchV1().Jobs(system).Get(ctx, job.Name, metav1.GetOptions{})
		if err != nil {
			return false, "", err
		}
		failed = now.Status.Failed > 0
		return failed || now.Status.Succeeded > 0, fmt.Sprintf("%+v", now.Status), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := shared.Client.CoreV1().Pods(system).List(ctx, metav1.ListOptions{LabelSelector: "job-name=" + job.Name})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d pods of Job %s, %v", len(pods.Items), job.Name, err)
	}
	log, err = shared.Logs(ctx, system, pods.Items[0].Name, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("rotator:\n%s", log)
	return log, failed
}

// rotatorState returns the ConfigMaps of the rotator's state.
func rotatorState(t *testing.T, system string) (state []corev1.ConfigMap) {
	t.Helper()
	maps, err := shared.Client.CoreV1().ConfigMaps(system).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps.Items {
		if strings.HasPrefix(m.Name, "secretmanager-rotation") {
			state = append(state, m)
		}
	}
	return state
}

// inNamespace sets the namespace of the objects in a manifest.
func inNamespace(namespace string) cluster.Edit {
	return func(object *unstructured.Unstructured) error {
		object.SetNamespace(namespace)
		return nil
	}
}

// createServiceAccount creates a service account.
func createServiceAccount(t *testing.T, namespace, name string) {
	t.Helper()
	_, err := shared.Client.CoreV1().ServiceAccounts(namespace).
		Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}
