package main

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
	"github.com/secretmanager-io/secretmanager/internal/doctor"
	"github.com/secretmanager-io/secretmanager/test/cliscript"
	"github.com/secretmanager-io/secretmanager/test/programs"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// doctorEnv is a cluster and a Vault with a complete installation, from the manifests of the
// driver's release and of this repository. The status that kubelet and controllers would set is
// written. It is not shared with other tests, as it changes the driver and seals Vault.
type doctorEnv struct {
	vault     *testenv.Vault
	server    *testenv.APIServer
	kube      kubernetes.Interface
	env       map[string]string
	driverDir string // directory of the driver's manifests

	resources []schema.GroupVersionResource // that a snapshot lists
}

func newDoctorEnv(t *testing.T) *doctorEnv {
	t.Helper()
	c := &doctorEnv{vault: testenv.NewVault(t), server: testenv.NewAPIServer(t)}
	kubectl, err := programs.Path(t.Context(), "kubectl")
	check(t, err)
	bin := t.TempDir()
	check(t, os.Symlink(kubectl, filepath.Join(bin, "kubectl")))
	cliscript.LinkPrograms(t, bin)
	c.env = map[string]string{
		"PATH": bin + ":/usr/bin:/bin", "HOME": t.TempDir(), "KUBECONFIG": c.server.Kubeconfig,
		"VAULT_ADDR": c.vault.Address, "VAULT_TOKEN": c.vault.RootToken,
	}
	c.kube, err = kubernetes.NewForConfig(c.server.Config)
	check(t, err)
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}",
		"sigs.k8s.io/secrets-store-csi-driver").Output()
	check(t, err)
	c.driverDir = strings.TrimSpace(string(dir)) + "/deploy"
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// install creates the installation and, in namespace demo, a running app.
func (c *doctorEnv) install(t *testing.T) {
	t.Helper()
	root, err := filepath.Abs("../..")
	check(t, err)
	c.env["ROOT"], c.env["DRIVER"] = root, c.driverDir
	c.sh(t, `
		cd "$DRIVER"
		kubectl apply -f secrets-store.csi.x-k8s.io_secretproviderclasses.yaml
		kubectl apply -f secrets-store.csi.x-k8s.io_secretproviderclasspodstatuses.yaml
		kubectl wait --for=condition=Established crd --all
		# This API server does not accept privileged containers; no kubelet runs them.
		sed -e 's/rotation=false/rotation=true/' -e 's/rotation-poll-interval=2m/rotation-poll-interval=0s/' \
			-e 's/privileged: true/privileged: false/' -e /mountPropagation/d \
			secrets-store-csi-driver.yaml | kubectl apply -f -
		kubectl apply -f "$ROOT/manifests/driver/csidriver.yaml"
		kubectl apply -k "$ROOT/manifests"
		kubectl create namespace demo
		kubectl -n demo create serviceaccount web
		kubectl -n demo create serviceaccount nobody
		kubectl -n demo create serviceaccount no-rights
		kubectl -n kube-system create serviceaccount secrets-store-csi-driver`)
	c.setVaultAddress(t, c.vault.Address)
	check(t, c.vault.TrustAPIServer(t.Context(), "kubernetes", c.server, c.server.ReviewerToken(t)))
	for node := range slices.Values([]string{"node-1", "node-2"}) {
		c.pod(t, "kube-system", "driver-"+node, "app: csi-secrets-store", node)
		c.pod(t, "secretmanager-system", "provider-"+node, providerLabels, node)
		c.register(t, node)
	}
	c.daemonSetReady(t, "kube-system", "csi-secrets-store", 2)
	c.exporterReady(t, 1)
	c.sh(t, `
		secretmanager vault-setup --transit-key web -n demo --service-account web --apply
		secretmanager encrypt web -n demo --transit-key web --from-literal password=hunter2 --from-literal token=t0ken`)
	c.apply(t, webClass+webPod)
	c.setRunning(t, "web-0")
	c.apply(t, webMounted)
}

// setVaultAddress sets the address of Vault in the ConfigMap of the provider, as an overlay does.
func (c *doctorEnv) setVaultAddress(t *testing.T, address string) {
	t.Helper()
	c.sh(t, `
		name=$(kubectl -n secretmanager-system get configmap -o name | grep /secretmanager-vault)
		kubectl -n secretmanager-system patch $name -p '{"data":{"VAULT_ADDR":"`+address+`"}}'`)
}

// patchProvider patches the DaemonSet of the provider.
func (c *doctorEnv) patchProvider(t *testing.T, kind, patch string) {
	t.Helper()
	c.run(t, "", "kubectl", "-n", "secretmanager-system", "patch", "daemonset", "secretmanager-provider", kind,
		"-p", patch)
}

// providerLabels are the labels by which the DaemonSet of the provider selects its pods.
const providerLabels = "app.kubernetes.io/name: secretmanager-provider, app.kubernetes.io/instance: secretmanager"

// register makes the kubelet of a node know the driver.
func (c *doctorEnv) register(t *testing.T, node string) {
	t.Helper()
	c.apply(t, `
apiVersion: storage.k8s.io/v1
kind: CSINode
metadata: {name: `+node+`}
spec: {drivers: [{name: secrets-store.csi.k8s.io, nodeID: `+node+`}]}
`)
}

// pod creates a ready pod.
func (c *doctorEnv) pod(t *testing.T, namespace, name, label, node string) {
	t.Helper()
	account := map[string]string{"kube-system": "secrets-store-csi-driver",
		"secretmanager-system": "secretmanager-provider"}[namespace]
	c.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: `+name+`, namespace: `+namespace+`, labels: {`+label+`}}
spec:
  nodeName: `+node+`
  automountServiceAccountToken: false
  serviceAccountName: `+account+`
  containers: [{name: c, image: "secretmanager:v0.1.0"}]
`)
	c.status(t, namespace, name,
		corev1.PodStatus{Phase: corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}})
}

func (c *doctorEnv) status(t *testing.T, namespace, name string, status corev1.PodStatus) {
	t.Helper()
	pod, err := c.kube.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
	check(t, err)
	pod.Status = status
	_, err = c.kube.CoreV1().Pods(namespace).UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
	check(t, err)
}

// setRunning sets the start of a container of a pod in demo to a time in the future, so that every
// mount is before it.
func (c *doctorEnv) setRunning(t *testing.T, name string) {
	t.Helper()
	c.setRunningSince(t, name, time.Now().Add(24*time.Hour))
}

func (c *doctorEnv) setRunningSince(t *testing.T, name string, start time.Time) {
	t.Helper()
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(start)}}
	c.status(t, "demo", name,
		corev1.PodStatus{Phase: corev1.PodRunning,
			ContainerStatuses: []corev1.ContainerStatus{{Name: "app", State: running}}})
}

func (c *doctorEnv) daemonSetReady(t *testing.T, namespace, name string, ready int32) {
	t.Helper()
	set, err := c.kube.AppsV1().DaemonSets(namespace).Get(t.Context(), name, metav1.GetOptions{})
	check(t, err)
	set.Status.DesiredNumberScheduled, set.Status.NumberReady = 2, ready
	_, err = c.kube.AppsV1().DaemonSets(namespace).UpdateStatus(t.Context(), set, metav1.UpdateOptions{})
	check(t, err)
}

func (c *doctorEnv) exporterReady(t *testing.T, ready int32) {
	t.Helper()
	deployments := c.kube.AppsV1().Deployments("secretmanager-system")
	d, err := deployments.Get(t.Context(), "secretmanager-exporter", metav1.GetOptions{})
	check(t, err)
	d.Status.ObservedGeneration, d.Status.Replicas, d.Status.ReadyReplicas = d.Generation, 1, ready
	_, err = deployments.UpdateStatus(t.Context(), d, metav1.UpdateOptions{})
	check(t, err)
}

// failedMount creates the event of a failed mount.
func (c *doctorEnv) failedMount(t *testing.T, pod, message string) {
	t.Helper()
	p, err := c.kube.CoreV1().Pods("demo").Get(t.Context(), pod, metav1.GetOptions{})
	check(t, err)
	_, err = c.kube.CoreV1().Events("demo").Create(t.Context(), &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: pod + "-"},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "demo", Name: pod, UID: p.UID},
		Reason:         "FailedMount", Type: corev1.EventTypeWarning, Message: message, LastTimestamp: metav1.Now(),
	}, metav1.CreateOptions{})
	check(t, err)
}

func (c *doctorEnv) apply(t *testing.T, manifest string) {
	t.Helper()
	c.run(t, manifest, "kubectl", "apply", "-f", "-")
}

// sh runs a shell script; each command must succeed.
func (c *doctorEnv) sh(t *testing.T, script string) {
	t.Helper()
	c.run(t, "", "sh", "-ec", script)
}

func (c *doctorEnv) run(t *testing.T, stdin, name string, args ...string) {
	t.Helper()
	if out, err := c.command(t.Context(), stdin, c.env, name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func (c *doctorEnv) command(ctx context.Context, stdin string, env map[string]string, name string,
	args ...string) *exec.Cmd {
	path := name
	if name != "sh" {
		path = filepath.Join(strings.Split(c.env["PATH"], ":")[0], name)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// vaultDelete deletes something in Vault.
func (c *doctorEnv) vaultDelete(t *testing.T, path string) {
	t.Helper()
	_, err := c.vault.Do(t.Context(), http.MethodDelete, path, c.vault.RootToken, nil)
	check(t, err)
}

// result is the result of a run of doctor.
type result struct {
	checks []doctor.Check
	stderr string
	code   int
}

// doctor runs doctor with -o json, and checks that the output has no secret.
func (c *doctorEnv) doctor(t *testing.T, env map[string]string, args ...string) result {
	t.Helper()
	all := maps.Clone(c.env)
	maps.Copy(all, env)
	var stdout, stderr bytes.Buffer
	v := result{code: c.inProcess(t, all, &stdout, &stderr,
		append([]string{"doctor", "-n", "demo", "-o", "json"}, args...)...)}
	v.stderr = stderr.String()
	var out struct{ Checks []doctor.Check }
	if err := json.Unmarshal(stdout.Bytes(), &out); err != nil {
		t.Fatalf("doctor %s: %v\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
	}
	v.checks = out.Checks
	for _, secret := range []string{"eyJ", "hvs.", "hvb.", "vault:v1:", "hunter2", "t0ken", `"root"`, "goroutine",
		"panic"} {
		if strings.Contains(stdout.String()+stderr.String(), secret) {
			t.Errorf("doctor %s shows %q:\n%s%s", strings.Join(args, " "), secret, &stdout, &stderr)
		}
	}
	return v
}

// inProcess runs the program in this process: starting one takes longer than its work.
func (c *doctorEnv) inProcess(t *testing.T, env map[string]string, stdout, stderr io.Writer, args ...string) int {
	t.Helper()
	return root.Run(t.Context(), cli.Environment{
		IOStreams:   genericiooptions.IOStreams{In: strings.NewReader(""), Out: stdout, ErrOut: stderr},
		ProgramName: "secretmanager", Getenv: func(name string) string { return env[name] },
	}, append(args, "--kubeconfig", env["KUBECONFIG"]))
}

// check finds a check by its name.
func (v result) check(t *testing.T, name string) doctor.Check {
	t.Helper()
	i := slices.IndexFunc(v.checks, func(c doctor.Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no check %s in\n%s", name, v)
	}
	return v.checks[i]
}

// in returns the names of the checks that are in a state.
func (v result) in(state doctor.State) []string {
	var names []string
	for _, l := range v.checks {
		if l.State == state {
			names = append(names, l.Name)
		}
	}
	return names
}

func (v result) String() string {
	var b strings.Builder
	for _, l := range v.checks {
		b.WriteString(string(l.State) + " " + l.Name + ": " + l.Detail + " | " +
			strings.Join(append(l.Fixes, l.Warnings...), " ; ") + "\n")
	}
	return b.String() + v.stderr
}

// issuerKeys returns the public keys of service account tokens, as a jwt mount takes them.
func (c *doctorEnv) issuerKeys(t *testing.T) []string {
	t.Helper()
	raw, err := c.kube.Discovery().RESTClient().Get().AbsPath("/openid/v1/jwks").Do(t.Context()).Raw()
	check(t, err)
	var set struct {
		Keys []struct{ N, E string }
	}
	check(t, json.Unmarshal(raw, &set))
	var keys []string
	for _, k := range set.Keys {
		n, err := base64.RawURLEncoding.DecodeString(k.N)
		check(t, err)
		e, err := base64.RawURLEncoding.DecodeString(k.E)
		check(t, err)
		der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).SetBytes(n),
			E: int(new(big.Int).SetBytes(e).Int64())})
		check(t, err)
		keys = append(keys, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	}
	return keys
}

// kubeconfigOf returns an environment with the kubeconfig of a service account in demo.
func (c *doctorEnv) kubeconfigOf(t *testing.T, account string) map[string]string {
	t.Helper()
	config := rest.AnonymousClientConfig(c.server.Config)
	file := clientcmdapi.NewConfig()
	file.Clusters["c"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: c.server.CA}
	file.AuthInfos["c"] = &clientcmdapi.AuthInfo{Token: c.server.ServiceAccountToken(t, "demo", account, "", time.Hour)}
	file.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "c"}
	file.CurrentContext = "c"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	check(t, clientcmd.WriteToFile(*file, path))
	return map[string]string{"KUBECONFIG": path}
}

const (
	webClass = `
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: web, namespace: demo}
spec: {provider: secretmanager, parameters: {roleName: demo-web, secretName: web, transitKey: web}}
---`
	webPod = `
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: demo}
spec:
  nodeName: node-1
  serviceAccountName: web
  automountServiceAccountToken: false
  containers: [{name: app, image: app}]
  volumes:
  - name: secrets
    csi:
      driver: secrets-store.csi.k8s.io
      readOnly: true
      volumeAttributes: {secretProviderClass: web}
      nodePublishSecretRef: {name: web}
---`
	webMounted = `
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClassPodStatus
metadata: {name: web-0-demo-web, namespace: demo}
status: {podName: web-0, secretProviderClassName: web, mounted: true}
`
)
