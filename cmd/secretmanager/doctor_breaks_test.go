package main

import (
	"strconv"
	"strings"
	"testing"
)

func sh(script string) func(*testing.T, *doctorEnv) {
	return func(t *testing.T, c *doctorEnv) { t.Helper(); c.sh(t, script) }
}

func patchCSIDriver(spec string) func(*testing.T, *doctorEnv) {
	return sh(`kubectl patch csidriver secrets-store.csi.k8s.io --type=merge -p '{"spec":` + spec + `}'`)
}

// editDriver edits the DaemonSet of the driver with a script of sed.
func editDriver(script string) func(*testing.T, *doctorEnv) {
	return sh(`kubectl -n kube-system get ds csi-secrets-store -o yaml | sed '` + script + `' | kubectl replace -f -`)
}

func patchClass(parameters string) func(*testing.T, *doctorEnv) {
	return sh(`kubectl -n demo patch secretproviderclass web --type=merge -p '{"spec":{"parameters":` + parameters + `}}'`)
}

// restoreClass replaces the class, so that parameters added by a merge patch are removed.
func restoreClass(t *testing.T, c *doctorEnv) {
	t.Helper()
	c.run(t, strings.TrimSuffix(webClass, "---"), "kubectl", "replace", "-f", "-")
}

// useAuthMount sets another auth mount in the class, which the operator allows.
func useAuthMount(mount string) func(*testing.T, *doctorEnv) {
	return func(t *testing.T, c *doctorEnv) {
		t.Helper()
		patchClass(`{"vaultAuthMountPath":"`+mount+`"}`)(t, c)
		c.patchProvider(t, "--type=json", `[{"op":"add","path":"/spec/template/spec/containers/0/args/-",
			"value":"--vault-allowed-auth-mounts=other,`+mount+`"}]`)
	}
}

func restoreAuthMount(t *testing.T, c *doctorEnv) {
	t.Helper()
	restoreClass(t, c)
	c.sh(t, `kubectl apply -k "$ROOT/manifests"`)
	c.setVaultAddress(t, c.vault.Address)
}

func newKey(derived bool) func(*testing.T, *doctorEnv) {
	return func(t *testing.T, c *doctorEnv) {
		t.Helper()
		c.sh(t, `vault write transit/keys/web type=aes256-gcm96`) // no effect if it exists
		_, err := c.vault.Write(t.Context(), "transit/keys/web/config", map[string]any{"deletion_allowed": true})
		check(t, err)
		c.vaultDelete(t, "transit/keys/web")
		if !derived {
			_, err = c.vault.Write(t.Context(), "transit/keys/web", map[string]any{})
			check(t, err)
		}
	}
}

// restoreSecret recreates key, class and Secret.
func restoreSecret(t *testing.T, c *doctorEnv) {
	t.Helper()
	newKey(true)(t, c)
	restoreClass(t, c)
	c.sh(t, `
		vault write transit/keys/web derived=true
		kubectl -n demo delete secret web --ignore-not-found
		secretmanager encrypt web -n demo --transit-key web --from-literal password=hunter2 --from-literal token=t0ken`)
}

// rotateKey makes the CronJob rotate a key.
func rotateKey(key string, suspend bool) func(*testing.T, *doctorEnv) {
	return sh(`kubectl -n secretmanager-system patch cronjob secretmanager-rotator --type=json -p '[
		{"op":"add","path":"/spec/suspend","value":` + strconv.FormatBool(suspend) + `},
		{"op":"add","path":"/spec/jobTemplate/spec/template/spec/containers/0/args/-","value":"--transit-key=` + key +
		`"}]'`)
}

func restoreRotator(t *testing.T, c *doctorEnv) {
	t.Helper()
	c.sh(t, `kubectl apply -k "$ROOT/manifests"`)
	c.setVaultAddress(t, c.vault.Address)
}

const (
	role        = "auth/kubernetes/role/demo-web"
	rotatorRole = "auth/kubernetes/role/secretmanager-rotator"
)

// apiDeployment has a volume whose nodePublishSecretRef does not name the Secret of the class.
const apiDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: demo}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec:
      serviceAccountName: web
      containers: [{name: app, image: app}]
      volumes:
      - {name: other, emptyDir: {}}
      - name: secrets
        csi:
          driver: secrets-store.csi.k8s.io
          readOnly: true
          volumeAttributes: {secretProviderClass: web}
          nodePublishSecretRef: {name: other}
`

// Objects that fixes change, as a snapshot names them.
const (
	classObject     = "secretproviderclasses demo/web"
	csiDriverObject = "csidrivers /secrets-store.csi.k8s.io"
)

// createPodLike creates a running pod, a copy of web-0 with a replacement.
func createPodLike(t *testing.T, c *doctorEnv, name, from, to string) {
	t.Helper()
	c.apply(t, strings.TrimSuffix(strings.ReplaceAll(strings.ReplaceAll(webPod, "web-0", name), from, to), "---"))
	c.setRunning(t, name)
	c.apply(t, strings.ReplaceAll(webMounted, "web-0", name))
}
