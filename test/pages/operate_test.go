package pages_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/test/pages"
)

// applyDriver creates the kinds of the driver and its CSIDriver, which stay.
func (g *guide) applyDriver() {
	g.t.Helper()
	where, err := exec.CommandContext(g.t.Context(), "go", "list", "-m", "-f", "{{.Dir}}",
		"sigs.k8s.io/secrets-store-csi-driver").Output()
	g.Must(err)
	const group = "secrets-store.csi.x-k8s.io_"
	crds := filepath.Join(strings.TrimSpace(string(where)), "deploy", group)
	g.must(fmt.Sprintf(`kubectl apply -k manifests/driver
		kubectl apply -f %[1]ssecretproviderclasses.yaml -f %[1]ssecretproviderclasspodstatuses.yaml
		kubectl wait --for=condition=Established --timeout=1m \
			crd/secretproviderclasses.secrets-store.csi.x-k8s.io crd/secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io`,
		crds))
	g.afterwards("kubectl -n demo delete secretproviderclasses,secretproviderclasspodstatuses --all")
}

// createMatrix creates what most pages begin with: a key, a service account, a Secret and a class in namespace demo.
func (g *guide) createMatrix() {
	g.t.Helper()
	g.applyDriver()
	g.must(`kubectl -n demo create serviceaccount matrix
		secretmanager vault-setup --transit-key matrix -n demo --service-account matrix --apply
		printf 'two\nlines' > text
		secretmanager encrypt matrix-secrets -n demo --transit-key matrix --service-account matrix \
			--from-literal api-token=first --from-file text --dry-run=client -o yaml \
			--print-class > all.yaml
		kubectl apply -f all.yaml`)
}

// pod creates a pod that mounts the class. Nothing runs it.
const pod = `kubectl apply -f - <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: demo}
spec:
  serviceAccountName: matrix
  nodeName: node-1
  containers:
  - {name: app, image: app, volumeMounts: [{name: secrets, mountPath: /secrets, readOnly: true}]}
  volumes:
  - name: secrets
    csi:
      driver: secrets-store.csi.k8s.io
      readOnly: true
      volumeAttributes: {secretProviderClass: matrix-secrets}
      nodePublishSecretRef: {name: matrix-secrets}
EOF
`

// TestOnCall runs docs/on-call.md in an installation without a driver, with the rights of the roles in
// docs/permissions.md.
func TestOnCall(t *testing.T) {
	g := newGuide(t)
	g.createMatrix()
	g.must("kubectl apply -k manifests > /dev/null\nkubectl -n demo create serviceaccount on-call\n" + pod)
	g.afterwards("kubectl delete -f on-call.yaml\nkubectl delete clusterrolebinding secretmanager-on-call")
	g.words = map[string]string{"--group=on-call": "--serviceaccount=demo:on-call",
		"-ttl=12h": "-ttl=1h -field=token > token"}
	g.run(g.text("docs/permissions.md", "## On call"), nil)
	kubeconfig := g.kubeconfigOf("demo", "on-call")
	g.must(fmt.Sprintf("cp all.yaml file.yaml; KUBECONFIG='%s' kubectl auth whoami", kubeconfig))
	g.words = map[string]string{"POD": "web-0", "NAMESPACE": "demo", "NODE": "node-1", "FILE": "file.yaml -n demo"}
	g.found = true
	shells, _, err := pages.Run(g.text("docs/on-call.md", ""), g.dir, func(b pages.Block) (string, error) {
		b.Text = fmt.Sprintf("(\nexport KUBECONFIG='%s' VAULT_TOKEN=$(cat token)\n%s\n)", kubeconfig, b.Text)
		out, err := g.block(b)
		for _, text := range []string{"orbidden", "permission denied", "cannot list", "cannot get"} {
			if strings.Contains(out, text) {
				t.Errorf("line %d: the person on call lacks a right:\n%s", b.Line, out)
			}
		}
		return out, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if shells < 9 {
		t.Errorf("%d blocks were run", shells)
	}
}

// TestEmptyVolume runs docs/empty-volume.md for a pod that started before its volume was mounted, and one that started
// afterwards.
func TestEmptyVolume(t *testing.T) {
	g := newGuide(t)
	g.createMatrix()
	g.must(pod + strings.ReplaceAll(pod, "web-0", "web-1") + `
		kubectl -n demo create -f - <<'EOF'
apiVersion: v1
kind: Event
metadata: {name: failed, namespace: demo}
involvedObject: {kind: Pod, name: web-0, namespace: demo}
reason: FailedMount
message: 'rpc error: code = Unavailable desc = error reading from server: EOF'
type: Warning
EOF
		for pod in web-0 web-1; do kubectl -n demo create -f - <<EOF
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClassPodStatus
metadata: {name: $pod, namespace: demo}
status: {podName: $pod, mounted: true}
EOF
		done
		started() { kubectl -n demo patch pod $1 --subresource=status -p "status: {containerStatuses: [{name: app, image: app,
			imageID: '', ready: true, restartCount: 0, state: {running: {startedAt: '$2'}}}]}"; }
		started web-0 2026-01-01T00:00:00Z
		started web-1 2100-01-01T00:00:00Z`)
	g.afterwards("kubectl -n demo delete events --all")
	var outputs []string
	shells, _, err := pages.Run(g.text("docs/empty-volume.md", ""), g.dir, func(b pages.Block) (string, error) {
		out, err := g.block(b)
		outputs = append(outputs, strings.TrimSpace(out))
		return out, err
	})
	if err != nil || shells != 2 {
		t.Fatalf("%d blocks were run: %v", shells, err)
	}
	if !strings.Contains(outputs[0], "pod/web-0") {
		t.Errorf("the events are %s", outputs[0])
	}
	if outputs[1] != "demo/web-0" {
		t.Errorf("the pods that started before the mount are %q", outputs[1])
	}
	g.must("kubectl apply --dry-run=server -f has-secrets.yaml")
}

// TestGitOps runs docs/gitops.md. The key is rotated before the manifests are rewrapped.
func TestGitOps(t *testing.T) {
	g := newGuide(t)
	g.must("secretmanager vault-setup --transit-key matrix -n demo --service-account matrix --apply")
	shells, _ := g.run(g.text("docs/gitops.md", ""), func(b pages.Block) {
		switch {
		case strings.Contains(b.Text, "helm template"):
			g.must(`mkdir -p chart/templates
				cp deploy/*.yaml chart/templates/
				printf 'apiVersion: v2\nname: web\nversion: 0.1.0\n' > chart/Chart.yaml`)
		case strings.Contains(b.Text, "rewrap -R"):
			g.must("vault write -f transit/keys/matrix/rotate")
			if out, err := g.shell("secretmanager rewrap --check -R deploy/"); err == nil {
				t.Errorf("after a rotation, --check finds nothing:\n%s", out)
			}
		}
	})
	if shells != 5 {
		t.Errorf("%d blocks were run", shells)
	}
}

// TestLeave runs docs/leave.md, and compares the plain Secret with what was encrypted.
func TestLeave(t *testing.T) {
	g := newGuide(t)
	g.createMatrix()
	checked := false
	shells, _ := g.run(g.text("docs/leave.md", ""), func(b pages.Block) {
		if !strings.Contains(b.Text, "delete secretproviderclass") {
			return
		}
		checked = true
		plain, err := g.Kube.CoreV1().Secrets("demo").Get(t.Context(), "matrix-secrets-plain", metav1.GetOptions{})
		g.Must(err)
		want := map[string][]byte{"api-token": []byte("first"), "text": []byte("two\nlines")}
		if diff := cmp.Diff(want, plain.Data); diff != "" || len(plain.Annotations) > 0 {
			t.Errorf("the plain Secret has the annotations %v and (-want +got):\n%s", plain.Annotations, diff)
		}
		// If one entry does not decrypt, nothing is written.
		g.must(`kubectl -n demo get secret matrix-secrets -o yaml > before.yaml
			kubectl -n demo delete secret matrix-secrets-plain
			kubectl -n demo patch secret matrix-secrets --type=merge -p '{"stringData": {"zzz": "vault:v9:AAAA"}}'`)
		out, err := g.shell(pages.Blocks(g.text("docs/leave.md", ""))[0].Text)
		if err == nil {
			t.Errorf("an entry that does not decrypt is no error:\n%s", out)
		}
		g.must("! kubectl -n demo get secret matrix-secrets-plain")
	})
	if shells != 3 || !checked {
		t.Errorf("%d blocks were run, the Secret was compared: %v", shells, checked)
	}
}
