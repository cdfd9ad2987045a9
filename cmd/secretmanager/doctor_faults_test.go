package main

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fault breaks a check.
type fault struct {
	name   string
	check  string // the only check that is broken then
	blocks []string
	detail string // part of the detail
	fix    string // part of its commands
	inject func(*testing.T, *doctorEnv)
	args   []string // of doctor; the default is web-0
	// With fixed, the printed commands make the check ok, or those of the alternative with this number. They get stdin,
	// and change the objects in changes and nothing else: see snapshot. With alone, other checks are still broken then.
	fixed, alone bool
	choice       int
	stdin        string
	changes      []string
	undo         func(*testing.T, *doctorEnv)
}

var faults = []fault{
	{name: "driver's kinds", check: "crds", blocks: []string{"class"}, detail: "SecretProviderClassPodStatus",
		fix: "kubectl create -f https://raw.githubusercontent.com/kubernetes-sigs/secrets-store-csi-driver/v1.6.1/deploy/" +
			"secrets-store.csi.x-k8s.io_secretproviderclasspodstatuses.yaml",
		inject: sh(`kubectl delete crd secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io`),
		undo: func(t *testing.T, c *doctorEnv) {
			c.sh(t, `kubectl apply -f "$DRIVER/secrets-store.csi.x-k8s.io_secretproviderclasspodstatuses.yaml"
				kubectl wait --for=condition=Established crd --all`)
			c.apply(t, webMounted)
		}},
	{name: "driver not ready", check: "driver", blocks: []string{"rotation", "driver-nodes", "provider-nodes"},
		detail: "ready on 1 of 2 nodes", fix: "kubectl -n kube-system describe pods -l app=csi-secrets-store",
		inject: func(t *testing.T, c *doctorEnv) { c.daemonSetReady(t, "kube-system", "csi-secrets-store", 1) },
		undo:   func(t *testing.T, c *doctorEnv) { c.daemonSetReady(t, "kube-system", "csi-secrets-store", 2) }},
	{name: "rotation poll interval", check: "rotation", detail: "2m and not 0s", fix: "patch daemonset csi-secrets-store",
		fixed: true, changes: []string{"daemonsets kube-system/csi-secrets-store"},
		inject: editDriver(`s/interval=0s/interval=2m/`)},
	{name: "rotation poll interval not set", check: "rotation", detail: "its default of 2m", fixed: true,
		changes: []string{"daemonsets kube-system/csi-secrets-store"},
		inject:  editDriver(`/rotation-poll-interval/d`)},
	{name: "CSIDriver", check: "csidriver", blocks: []string{"token-requests"},
		detail: "CSIDriver secrets-store.csi.k8s.io does not exist",
		fix:    "kubectl create -f -", fixed: true, changes: []string{csiDriverObject},
		inject: sh(`kubectl delete csidriver secrets-store.csi.k8s.io`)},
	{name: "republish", check: "csidriver", detail: "requiresRepublish is not true", fixed: true,
		changes: []string{csiDriverObject},
		inject:  patchCSIDriver(`{"requiresRepublish":false}`)},
	{name: "token requests", check: "token-requests", detail: "lacks the audience vault (it has none)",
		fix: "patch csidriver", fixed: true, changes: []string{csiDriverObject},
		inject: patchCSIDriver(`{"tokenRequests":[]}`),
		undo:   sh(`kubectl apply -f "$ROOT/manifests/driver/csidriver.yaml"`)},
	{name: "one token request", check: "token-requests", detail: "lacks the audience vault (it has other)",
		fix: `{"op":"add","path":"/spec/tokenRequests/-","value":{"audience":"vault"}}`, fixed: true,
		changes: []string{csiDriverObject},
		inject:  patchCSIDriver(`{"tokenRequests":[{"audience":"other"}]}`),
		undo:    sh(`kubectl apply -f "$ROOT/manifests/driver/csidriver.yaml"`)},
	{name: "audience that only the class asks for", check: "token-requests",
		detail: "lacks the audience sts.example (it has vault)",
		args:   []string{"--class", "web", "--service-account", "web"},
		inject: func(t *testing.T, c *doctorEnv) {
			patchClass(`{"audience":"sts.example"}`)(t, c)
			c.sh(t, `vault write `+role+` audience=sts.example`)
		},
		undo: func(t *testing.T, c *doctorEnv) {
			restoreClass(t, c)
			c.sh(t, `vault write `+role+` audience=vault`)
		}},
	{name: "provider", check: "provider", blocks: []string{"socket-directory", "provider-nodes", "version"},
		detail: "not installed",
		inject: sh(`kubectl -n secretmanager-system label daemonset secretmanager-provider app.kubernetes.io/name-`),
		undo: sh(`kubectl -n secretmanager-system label daemonset secretmanager-provider \
			app.kubernetes.io/name=secretmanager-provider`)},
	{name: "provider without Vault", check: "provider", detail: "has no address of Vault",
		fix: "set env daemonset/secretmanager-provider", choice: 1,
		changes: []string{"daemonsets secretmanager-system/secretmanager-provider"},
		inject:  func(t *testing.T, c *doctorEnv) { c.setVaultAddress(t, "") },
		undo: func(t *testing.T, c *doctorEnv) {
			c.setVaultAddress(t, c.vault.Address)
			c.sh(t, `kubectl -n secretmanager-system set env daemonset/secretmanager-provider VAULT_ADDR-`)
		}},
	{name: "containers beside driver and provider", check: "provider", detail: "has no address of Vault",
		inject: func(t *testing.T, c *doctorEnv) {
			c.setVaultAddress(t, "")
			c.patchProvider(t, "--type=json", `[{"op":"add","path":"/spec/template/spec/containers/0","value":
				{"name":"mesh","image":"mesh:v9","env":[{"name":"VAULT_ADDR","value":"https://mesh:8200"}]}}]`)
		},
		undo: func(t *testing.T, c *doctorEnv) {
			c.setVaultAddress(t, c.vault.Address)
			c.patchProvider(t, "--type=json", `[{"op":"remove","path":"/spec/template/spec/containers/0"}]`)
		}},
	{name: "inline authentication with Vault", check: "inline-auth", detail: "ignores the login in a request",
		fix: "patch daemonset secretmanager-provider", fixed: true,
		changes: []string{"daemonsets secretmanager-system/secretmanager-provider"},
		inject: func(t *testing.T, c *doctorEnv) {
			c.patchProvider(t, "--type=json", `[{"op":"add","path":"/spec/template/spec/containers/0/args/-",
				"value":"--vault-inline-auth=kubernetes"}]`)
		}},
	{name: "socket in a directory that the driver does not know", check: "socket-directory",
		detail: "is in /opt/providers on the nodes, and the driver looks for it in /var/run/secrets-store-csi-providers, " +
			"/etc/kubernetes/secrets-store-csi-providers",
		fix: "patch daemonset secretmanager-provider", fixed: true,
		changes: []string{"daemonsets secretmanager-system/secretmanager-provider"},
		inject: sh(`kubectl -n secretmanager-system get ds secretmanager-provider -o yaml |
			sed s:/var/run/secrets-store-csi-providers:/opt/providers: | kubectl replace -f -`)},
	{name: "driver below another directory than that of the kubelet", check: "driver-nodes",
		detail: "runs on node-2, but the kubelet there does not know it", fix: "logs daemonset/csi-secrets-store",
		inject: sh(`kubectl delete csinode node-2`),
		undo:   func(t *testing.T, c *doctorEnv) { c.register(t, "node-2") }},
	{name: "provider not ready", check: "provider-nodes",
		detail: "on 1 of 2 nodes with the driver: node-2 (provider-node-2: ImagePullBackOff)", fix: "logs provider-node-2",
		inject: func(t *testing.T, c *doctorEnv) {
			waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}
			c.status(t, "secretmanager-system", "provider-node-2",
				corev1.PodStatus{Phase: corev1.PodPending,
					ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: waiting}}})
		},
		undo: func(t *testing.T, c *doctorEnv) {
			c.pod(t, "secretmanager-system", "provider-node-2", providerLabels, "node-2")
		}},
	{name: "no provider", check: "provider-nodes", detail: "node-1 (none)",
		fix:    "describe daemonset secretmanager-provider",
		inject: sh(`kubectl -n secretmanager-system delete pod provider-node-1 --force`),
		undo: func(t *testing.T, c *doctorEnv) {
			c.pod(t, "secretmanager-system", "provider-node-1", providerLabels, "node-1")
		}},
	{name: "no driver by the pod", check: "provider-nodes", detail: "does not run on node node-1, where the pod is",
		fix:    "kubectl describe node node-1",
		inject: sh(`kubectl -n kube-system delete pod driver-node-1 --force`),
		undo: func(t *testing.T, c *doctorEnv) {
			c.pod(t, "kube-system", "driver-node-1", "app: csi-secrets-store", "node-1")
		}},
	{name: "rotator is suspended", check: "rotator", blocks: []string{"rotator-run", "retirement"},
		detail: "CronJob secretmanager-system/secretmanager-rotator is suspended: no key is rotated", fixed: true,
		changes: []string{"cronjobs secretmanager-system/secretmanager-rotator"},
		inject:  rotateKey("web", true), undo: restoreRotator},
	{name: "role of the rotator lacks policies", check: "rotator-role",
		detail: "lacks a policy; secretmanager-rotator-web", fixed: true, changes: []string{"vault " + rotatorRole},
		inject: func(t *testing.T, c *doctorEnv) {
			rotateKey("web", false)(t, c)
			c.sh(t, `vault write `+rotatorRole+` token_policies=`)
		}, undo: restoreRotator},
	{name: "no role of the rotator", check: "rotator-role", detail: "does not exist: the rotator cannot log in",
		fixed: true, changes: []string{"vault " + rotatorRole},
		inject: func(t *testing.T, c *doctorEnv) {
			rotateKey("web", false)(t, c)
			c.vaultDelete(t, rotatorRole)
		}, undo: restoreRotator},
	{name: "role of another rotator", check: "rotator-role", detail: `bound_service_account_names are ["x"]`,
		inject: sh(`vault write ` + rotatorRole + ` bound_service_account_names=x`),
		undo:   sh(`vault write ` + rotatorRole + ` bound_service_account_names=secretmanager-rotator`)},
	{name: "exporter without pods", check: "exporter", detail: "has 0 replicas", fixed: true,
		changes: []string{"deployments secretmanager-system/secretmanager-exporter"},
		inject:  sh(`kubectl -n secretmanager-system scale deployment secretmanager-exporter --replicas=0`)},
	{name: "sealed", check: "vault-seal", blocks: []string{"auth-mount", "role", "audience", "login", "policy", "key",
		"decrypts"}, detail: "sealed", fix: "vault operator unseal",
		inject: func(t *testing.T, c *doctorEnv) { check(t, c.vault.Seal(t.Context())) },
		undo:   func(t *testing.T, c *doctorEnv) { check(t, c.vault.Unseal(t.Context())) }},
	{name: "auth mount", check: "auth-mount", blocks: []string{"role", "audience", "login", "policy"},
		detail: "auth/nowhere does not exist", fix: "vault auth enable -path=nowhere kubernetes",
		choice: 2, changes: []string{classObject},
		inject: useAuthMount("nowhere"), undo: restoreAuthMount},
	{name: "auth mount that is not allowed", check: "class", detail: "--vault-allowed-auth-mounts",
		args:   []string{"web-0", "--auth-mount=elsewhere"},
		inject: patchClass(`{"vaultAuthMountPath":"elsewhere"}`), undo: restoreClass},
	{name: "auth mount without configuration", check: "auth-mount", blocks: []string{"role", "login", "policy"},
		detail: "auth/fresh has not been configured",
		fix:    "vault write auth/fresh/config kubernetes_host=https://kubernetes.default.svc",
		choice: 2, changes: []string{classObject},
		inject: func(t *testing.T, c *doctorEnv) {
			c.sh(t, `vault auth enable -path=fresh kubernetes`)
			useAuthMount("fresh")(t, c)
		}, undo: restoreAuthMount},
	{name: "auth mount of another kind", check: "auth-mount", detail: "is of type approle",
		inject: func(t *testing.T, c *doctorEnv) {
			c.sh(t, `vault auth enable -path=people approle`)
			useAuthMount("people")(t, c)
		}, undo: restoreAuthMount},
	{name: "class", check: "class", blocks: []string{"auth-mount", "role", "key", "secret", "label", "decrypts", "source"},
		detail: "SecretProviderClass web does not exist",
		inject: sh(`kubectl -n demo delete secretproviderclass web`),
		undo:   func(t *testing.T, c *doctorEnv) { c.apply(t, strings.TrimSuffix(webClass, "---")) }},
	{name: "parameters", check: "class", detail: `rollName`, fix: "get secretproviderclass web",
		inject: patchClass(`{"rollName":"x"}`), undo: restoreClass},
	{name: "class of another provider", check: "class", detail: `spec.provider is "vault"`,
		args:   []string{"--class", "web", "--service-account", "web"},
		inject: sh(`kubectl -n demo patch secretproviderclass web --type=merge -p '{"spec":{"provider":"vault"}}'`),
		undo:   restoreClass},
	{name: "address that is not allowed", check: "class", detail: "--vault-allowed-addresses",
		inject: patchClass(`{"vaultAddress":"https://elsewhere:8200"}`), undo: restoreClass},
	{name: "service account", check: "service-account", blocks: []string{"role", "login", "policy", "source"},
		detail: "service account web does not exist", fix: "create serviceaccount web", fixed: true,
		changes: []string{"serviceaccounts demo/web"},
		inject:  sh(`kubectl -n demo delete serviceaccount web`)},
	{name: "no role", check: "role", blocks: []string{"audience", "login", "policy"},
		detail: "auth/kubernetes/role/web-role does not exist; role demo-web fits", fixed: true,
		changes: []string{classObject},
		inject:  patchClass(`{"roleName":"web-role"}`), undo: restoreClass},
	{name: "role of another account", check: "role", detail: `bound_service_account_names are ["nobody"]`,
		inject: sh(`vault write ` + role + ` bound_service_account_names=nobody`),
		undo:   sh(`vault write ` + role + ` bound_service_account_names=web`)},
	{name: "role of another namespace", check: "role", detail: `bound_service_account_namespaces are ["prod"]`,
		inject: sh(`vault write ` + role + ` bound_service_account_namespaces=prod`),
		undo:   sh(`vault write ` + role + ` bound_service_account_namespaces=demo`)},
	{name: "audience", check: "audience", blocks: []string{"login", "policy"},
		detail: "accepts tokens for other, and the pod's is for vault",
		inject: sh(`vault write ` + role + ` audience=other`), undo: sh(`vault write ` + role + ` audience=vault`)},
	{name: "login", check: "login", blocks: []string{"policy"}, detail: "cannot log in as role demo-web",
		fix:    "vault read auth/kubernetes/config",
		inject: sh(`vault write auth/kubernetes/config kubernetes_host=https://127.0.0.1:1 disable_local_ca_jwt=true`),
		undo: func(t *testing.T, c *doctorEnv) {
			check(t, c.vault.TrustAPIServer(t.Context(), "kubernetes", c.server, c.server.ReviewerToken(t)))
		}},
	{name: "policy", check: "policy", detail: "no policy of role demo-web grants update on transit/decrypt/web",
		inject: sh(`vault write ` + role + ` token_policies=none`),
		undo:   sh(`vault write ` + role + ` token_policies=secretmanager-app-web`)},
	{name: "policy, without a login", check: "policy", detail: "grants update on transit/decrypt/web", fixed: false,
		args:   []string{"web-0", "--login=false"},
		inject: sh(`vault write ` + role + ` token_policies=none`),
		undo:   sh(`vault write ` + role + ` token_policies=secretmanager-app-web`)},
	{name: "no key", check: "key", blocks: []string{"decrypts"}, detail: "transit/keys/web does not exist",
		inject: newKey(true), undo: restoreSecret},
	{name: "key that is not derived", check: "key", blocks: []string{"decrypts"}, detail: "not derived",
		inject: newKey(false), undo: restoreSecret},
	{name: "scope none with a derived key", check: "key", detail: "the Secret decrypts with scope strict", fixed: true,
		changes: []string{classObject, "secrets demo/web"},
		inject: func(t *testing.T, c *doctorEnv) {
			patchClass(`{"scope":"none"}`)(t, c)
			c.sh(t, `kubectl -n demo annotate secret web secretmanager.io/scope=none --overwrite`)
		}, undo: restoreSecret},
	{name: "Secret", check: "secret", blocks: []string{"label", "decrypts", "source"}, detail: "Secret web does not exist",
		inject: sh(`kubectl -n demo delete secret web`), undo: restoreSecret},
	{name: "Secret of a class that names entries", check: "secret", detail: "Secret web does not exist", fixed: true,
		fix: "secretmanager encrypt web -n demo --transit-key web --from-file token=-", stdin: "n3w",
		changes: []string{"secrets demo/web"},
		inject: func(t *testing.T, c *doctorEnv) {
			patchClass(`{"objects":"- objectName: token\n"}`)(t, c)
			c.sh(t, `kubectl -n demo delete secret web`)
		}, undo: restoreSecret},
	{name: "entry", check: "secret", detail: `entry "missing", which the class names, does not exist`,
		fix: "--from-file missing=-", fixed: true, stdin: "v", changes: []string{"secrets demo/web"},
		inject: patchClass(`{"objects":"- objectName: missing\n- objectName: token\n"}`), undo: restoreSecret},
	{name: "plaintext", check: "secret", detail: `entry "token" is not ciphertext`,
		fixed: true, changes: []string{"secrets demo/web"},
		inject: sh(`kubectl -n demo patch secret web --type=merge -p '{"stringData":{"token":"t0ken"}}'`),
		undo:   restoreSecret},
	{name: "plaintext in several entries", check: "secret", detail: `entry "token" is not ciphertext`,
		fix: "--from-stdin-json", fixed: true, stdin: `{"password":"v","token":"w"}`, changes: []string{"secrets demo/web"},
		inject: sh(`secretmanager encrypt web -n demo --transit-key web --from-literal third=3
			kubectl -n demo patch secret web --type=merge -p '{"stringData":{"token":"t0ken","password":"hunter2"}}'`),
		undo: restoreSecret},
	{name: "label", check: "label", detail: "label secretmanager.io/transit-key is missing",
		fix: "kubectl -n demo label secret web secretmanager.io/transit-key=web", fixed: true,
		changes: []string{"secrets demo/web"},
		inject:  sh(`kubectl -n demo label secret web secretmanager.io/transit-key-`)},
	{name: "label of another key", check: "label", detail: "the entries decrypt with what the class says", fixed: true,
		changes: []string{"secrets demo/web"},
		inject:  sh(`kubectl -n demo label secret web secretmanager.io/transit-key=other --overwrite`), undo: restoreSecret},
	{name: "copied ciphertext", check: "decrypts", detail: `entry "password"`,
		fix: "--from-stdin-json", fixed: true, stdin: `{"password":"v","token":"w"}`,
		changes: []string{"secrets demo/web"},
		inject: func(t *testing.T, c *doctorEnv) {
			s, err := c.kube.CoreV1().Secrets("demo").Get(t.Context(), "web", metav1.GetOptions{})
			check(t, err)
			s.Data["password"], s.Data["token"] = s.Data["token"], s.Data["password"]
			_, err = c.kube.CoreV1().Secrets("demo").Update(t.Context(), s, metav1.UpdateOptions{})
			check(t, err)
		}, undo: restoreSecret},
	{name: "Secret of another name in the pod", check: "source",
		detail: "but the class names web; Secret other does not exist", args: []string{"web-1"},
		inject: func(t *testing.T, c *doctorEnv) { createPodLike(t, c, "web-1", "{name: web}", "{name: other}") }},
	{name: "neither the kubelet nor the pod reads the Secret", check: "source", detail: "may not get Secret web",
		args: []string{"web-2"},
		inject: func(t *testing.T, c *doctorEnv) {
			patchCSIDriver(`{"tokenRequests":[{"audience":"vault"},{"audience":""}]}`)(t, c)
			createPodLike(t, c, "web-2", "      nodePublishSecretRef: {name: web}\n", "")
			c.apply(t, strings.ReplaceAll(webMounted, "web-0", "web-2"))
		},
		undo: sh(`kubectl apply -f "$ROOT/manifests/driver/csidriver.yaml"`)},
	// Without a command: a pod is no reason to give the driver tokens for the API server.
	{name: "no token to read the Secret as the pod", check: "token-requests",
		detail: `lacks the audience "" (the API server)`, args: []string{"web-7"},
		inject: func(t *testing.T, c *doctorEnv) {
			createPodLike(t, c, "web-7", "      nodePublishSecretRef: {name: web}\n", "")
			c.sh(t, `kubectl -n demo create role web-token --verb=get --resource=secrets --resource-name=web
				kubectl -n demo create rolebinding web-token --role=web-token --serviceaccount=demo:web`)
		},
		undo: sh(`kubectl -n demo delete role/web-token rolebinding/web-token`)},
	{name: "Secret of another name in a Deployment", check: "source",
		detail: "but the class names web; Secret other does not exist", args: []string{"deploy/api"}, fixed: true,
		fix: "kubectl -n demo patch deployment api", changes: []string{"deployments demo/api"},
		inject: func(t *testing.T, c *doctorEnv) { c.apply(t, apiDeployment) },
		undo:   sh(`kubectl -n demo delete deployment api`)},
	{name: "volume that can be written", check: "pod", detail: "not readOnly: true", args: []string{"web-3"},
		inject: func(t *testing.T, c *doctorEnv) { createPodLike(t, c, "web-3", "readOnly: true", "readOnly: false") }},
	{name: "no volume", check: "pod", detail: "no volume of the driver", args: []string{"web-4"},
		inject: func(t *testing.T, c *doctorEnv) {
			createPodLike(t, c, "web-4", "driver: secrets-store.csi.k8s.io", "driver: other.example")
		}},
	{name: "parameter of the pod", check: "role", detail: "auth/kubernetes/role/gone does not exist",
		args: []string{"web-6"},
		inject: func(t *testing.T, c *doctorEnv) {
			createPodLike(t, c, "web-6", "{secretProviderClass: web}", "{secretProviderClass: web, roleName: gone}")
		}},
	{name: "no pod", check: "pod", detail: "pod gone does not exist", args: []string{"pod/gone"},
		fix: "kubectl -n demo get pods", inject: sh("true")},
	{name: "started before the mount", check: "mount", detail: "the volume that they see is empty",
		inject: func(t *testing.T, c *doctorEnv) { c.setRunningSince(t, "web-0", time.Now().Add(-time.Hour)) },
		undo:   func(t *testing.T, c *doctorEnv) { c.setRunning(t, "web-0") }},
	{name: "stuck", check: "mount", detail: "ago: VaultUnreachable: logging in to Vault",
		fix: "kubectl -n secretmanager-system logs", args: []string{"web-5"},
		inject: func(t *testing.T, c *doctorEnv) {
			createPodLike(t, c, "web-5", "{}", "{}")
			c.status(t, "demo", "web-5", corev1.PodStatus{Phase: corev1.PodPending})
			c.failedMount(t, "web-5",
				`MountVolume.SetUp failed for volume "secrets" : rpc error: code = Internal desc = `+
					`VaultUnreachable: logging in to Vault: connection refused; check Vault`)
			_, err := c.kube.CoreV1().Events("demo").Create(t.Context(), &corev1.Event{
				ObjectMeta:     metav1.ObjectMeta{GenerateName: "web-5-"},
				InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "demo", Name: "web-5", UID: "of-an-older-pod"},
				Reason:         "FailedMount", Message: "another message",
				LastTimestamp: metav1.NewTime(time.Now().Add(time.Minute)),
			}, metav1.CreateOptions{})
			check(t, err)
		}},
}
