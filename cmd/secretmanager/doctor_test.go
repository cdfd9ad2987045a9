package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/doctor"
	"github.com/secretmanager-io/secretmanager/test/relay"
)

// breakage is a check to break.
type breakage struct {
	name  string
	check string // that is broken then, and no other
	bar   []string
	says  string // in its detail
	fix   string // in its fixes
	wreck func(*testing.T, *clinic)
	args  []string // of doctor; web-0 if nil
	// fixed: its commands, run as they are printed, make the check ok. With alone, others
	// than it are left to fix then.
	fixed, alone bool
	undo         func(*testing.T, *clinic)
}

func sh(script string) func(*testing.T, *clinic) {
	return func(t *testing.T, c *clinic) { t.Helper(); c.sh(t, script) }
}

func patchClass(parameters string) func(*testing.T, *clinic) {
	return sh(`kubectl -n demo patch secretproviderclass web --type=merge -p '{"spec":{"parameters":` + parameters + `}}'`)
}

// The class as it was. What a merge patch added goes too.
func wholeClass(t *testing.T, c *clinic) {
	t.Helper()
	c.run(t, strings.TrimSuffix(webClass, "---"), "kubectl", "replace", "-f", "-")
}

// otherAuthMount has the class name another auth mount, which the operator allows.
func otherAuthMount(mount string) func(*testing.T, *clinic) {
	return func(t *testing.T, c *clinic) {
		t.Helper()
		patchClass(`{"vaultAuthMountPath":"`+mount+`"}`)(t, c)
		c.sh(t,
			`kubectl -n secretmanager-system patch daemonset secretmanager-provider --type=json -p '[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--vault-allowed-auth-mounts=other,`+mount+`"}]'`)
	}
}

func sameAuthMount(t *testing.T, c *clinic) {
	t.Helper()
	wholeClass(t, c)
	c.sh(t, `kubectl apply -k "$ROOT/manifests"`)
	c.vaultIs(t, c.vault.Address)
}

func newKey(derived bool) func(*testing.T, *clinic) {
	return func(t *testing.T, c *clinic) {
		t.Helper()
		c.sh(t, `vault write transit/keys/web type=aes256-gcm96`) // nothing, if it is there
		_, err := c.vault.Write(t.Context(), "transit/keys/web/config", map[string]any{"deletion_allowed": true})
		check(t, err)
		c.vaultDelete(t, "transit/keys/web")
		if !derived {
			_, err = c.vault.Write(t.Context(), "transit/keys/web", map[string]any{})
			check(t, err)
		}
	}
}

// encryptAgain makes a good key, class and Secret, whatever they were.
func encryptAgain(t *testing.T, c *clinic) {
	t.Helper()
	newKey(true)(t, c)
	wholeClass(t, c)
	c.sh(t, `
		vault write transit/keys/web derived=true
		kubectl -n demo delete secret web --ignore-not-found
		secretmanager encrypt web -n demo --transit-key web --from-literal password=hunter2 --from-literal token=t0ken`)
}

const role = "auth/kubernetes/role/demo-web"

var breakages = []breakage{
	{name: "driver's kinds", check: "crds", bar: []string{"class"}, says: "SecretProviderClassPodStatus",
		fix:   "helm upgrade --install",
		wreck: sh(`kubectl delete crd secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io`),
		undo: func(t *testing.T, c *clinic) {
			c.sh(t, `kubectl apply -f "$DRIVER/secrets-store.csi.x-k8s.io_secretproviderclasspodstatuses.yaml"
				kubectl wait --for=condition=Established crd --all`)
			c.apply(t, webMounted)
		}},
	{name: "driver not ready", check: "driver", bar: []string{"rotation", "provider-nodes"},
		says: "ready on 1 of 2 nodes", fix: "kubectl -n kube-system describe pods -l app=csi-secrets-store",
		wreck: func(t *testing.T, c *clinic) { c.daemonSetReady(t, "kube-system", "csi-secrets-store", 1) },
		undo:  func(t *testing.T, c *clinic) { c.daemonSetReady(t, "kube-system", "csi-secrets-store", 2) }},
	{name: "rotation poll interval", check: "rotation", says: "2m and not 0s", fix: "patch daemonset csi-secrets-store",
		fixed: true,
		wreck: sh(`kubectl -n kube-system get ds csi-secrets-store -o yaml | sed 's/interval=0s/interval=2m/' | kubectl replace -f -`)},
	{name: "rotation poll interval not set", check: "rotation", says: "its default of 2m", fixed: true,
		wreck: sh(`kubectl -n kube-system get ds csi-secrets-store -o yaml | sed '/rotation-poll-interval/d' | kubectl replace -f -`)},
	{name: "CSIDriver", check: "csidriver", bar: []string{"token-requests"}, says: "there is no CSIDriver",
		fix: "kubectl apply -f -", fixed: true,
		wreck: sh(`kubectl delete csidriver secrets-store.csi.k8s.io`)},
	{name: "republish", check: "csidriver", says: "requiresRepublish is not true", fixed: true,
		wreck: sh(`kubectl patch csidriver secrets-store.csi.k8s.io --type=merge -p '{"spec":{"requiresRepublish":false}}'`)},
	{name: "token requests", check: "token-requests", says: "lacks the audience vault (it has none)",
		fix: "patch csidriver", fixed: true,
		wreck: sh(`kubectl patch csidriver secrets-store.csi.k8s.io --type=merge -p '{"spec":{"tokenRequests":[]}}'`),
		undo:  sh(`kubectl apply -f "$ROOT/manifests/driver/csidriver.yaml"`)},
	{name: "one token request", check: "token-requests", says: "lacks the audience vault (it has other)",
		fix: `{"audience":"other"},{"audience":"vault"}`, fixed: true,
		wreck: sh(`kubectl patch csidriver secrets-store.csi.k8s.io --type=merge -p '{"spec":{"tokenRequests":[{"audience":"other"}]}}'`),
		undo:  sh(`kubectl apply -f "$ROOT/manifests/driver/csidriver.yaml"`)},
	{name: "audience that only the class asks for", check: "token-requests",
		says: "lacks the audience sts.example (it has vault)",
		args: []string{"--class", "web", "--service-account", "web"},
		wreck: func(t *testing.T, c *clinic) {
			patchClass(`{"audience":"sts.example"}`)(t, c)
			c.sh(t, `vault write `+role+` audience=sts.example`)
		},
		undo: func(t *testing.T, c *clinic) {
			wholeClass(t, c)
			c.sh(t, `vault write `+role+` audience=vault`)
		}},
	{name: "provider", check: "provider", bar: []string{"provider-nodes", "version"}, says: "not installed",
		wreck: sh(`kubectl -n secretmanager-system label daemonset secretmanager-provider app.kubernetes.io/name-`),
		undo:  sh(`kubectl -n secretmanager-system label daemonset secretmanager-provider app.kubernetes.io/name=secretmanager-provider`)},
	{name: "provider without Vault", check: "provider", says: "says nowhere where Vault is",
		fix: "set env daemonset/secretmanager-provider", fixed: true,
		wreck: func(t *testing.T, c *clinic) { c.vaultIs(t, "") },
		undo: func(t *testing.T, c *clinic) {
			c.vaultIs(t, c.vault.Address)
			c.sh(t, `kubectl -n secretmanager-system set env daemonset/secretmanager-provider VAULT_ADDR-`)
		}},
	{name: "containers beside driver and provider", check: "provider", says: "says nowhere where Vault is",
		wreck: func(t *testing.T, c *clinic) {
			c.vaultIs(t, "")
			c.sh(t, `kubectl -n secretmanager-system patch daemonset secretmanager-provider --type=json -p \
				'[{"op":"add","path":"/spec/template/spec/containers/0","value":{"name":"mesh","image":"mesh:v9","env":[{"name":"VAULT_ADDR","value":"https://mesh:8200"}]}}]'`)
		},
		undo: func(t *testing.T, c *clinic) {
			c.vaultIs(t, c.vault.Address)
			c.sh(t,
				`kubectl -n secretmanager-system patch daemonset secretmanager-provider --type=json -p '[{"op":"remove","path":"/spec/template/spec/containers/0"}]'`)
		}},
	{name: "provider not ready", check: "provider-nodes",
		says: "on 1 of 2 nodes with the driver: node-2 (provider-node-2: ImagePullBackOff)", fix: "logs provider-node-2",
		wreck: func(t *testing.T, c *clinic) {
			waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}
			c.status(t, "secretmanager-system", "provider-node-2",
				corev1.PodStatus{Phase: corev1.PodPending,
					ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: waiting}}})
		},
		undo: func(t *testing.T, c *clinic) {
			c.pod(t, "secretmanager-system", "provider-node-2", providerLabels, "node-2")
		}},
	{name: "no provider", check: "provider-nodes", says: "node-1 (none)", fix: "describe daemonset secretmanager-provider",
		wreck: sh(`kubectl -n secretmanager-system delete pod provider-node-1 --force`),
		undo: func(t *testing.T, c *clinic) {
			c.pod(t, "secretmanager-system", "provider-node-1", providerLabels, "node-1")
		}},
	{name: "no driver by the pod", check: "provider-nodes", says: "does not run on node node-1, where the pod is",
		fix:   "kubectl describe node node-1",
		wreck: sh(`kubectl -n kube-system delete pod driver-node-1 --force`),
		undo: func(t *testing.T, c *clinic) {
			c.pod(t, "kube-system", "driver-node-1", "app: csi-secrets-store", "node-1")
		}},
	{name: "sealed", check: "vault-seal", bar: []string{"auth-mount", "role", "audience", "login", "policy", "key",
		"opens"}, says: "sealed", fix: "vault operator unseal",
		wreck: func(t *testing.T, c *clinic) { check(t, c.vault.Seal(t.Context())) },
		undo:  func(t *testing.T, c *clinic) { check(t, c.vault.Unseal(t.Context())) }},
	// and configure it, which takes a Vault in the cluster
	{name: "auth mount", check: "auth-mount", bar: []string{"role", "audience", "login", "policy"},
		says: "there is no auth/nowhere", fix: "vault auth enable -path=nowhere kubernetes",
		wreck: otherAuthMount("nowhere"), undo: sameAuthMount},
	{name: "auth mount that is not allowed", check: "class", says: "--vault-allowed-auth-mounts",
		args:  []string{"web-0", "--auth-mount=elsewhere"},
		wreck: patchClass(`{"vaultAuthMountPath":"elsewhere"}`), undo: wholeClass},
	{name: "auth mount without configuration", check: "auth-mount", bar: []string{"role", "login", "policy"},
		says: "auth/fresh has not been configured",
		fix:  "vault write auth/fresh/config kubernetes_host=https://kubernetes.default.svc",
		wreck: func(t *testing.T, c *clinic) {
			c.sh(t, `vault auth enable -path=fresh kubernetes`)
			otherAuthMount("fresh")(t, c)
		}, undo: sameAuthMount},
	{name: "auth mount of another kind", check: "auth-mount", says: "is of type approle",
		wreck: func(t *testing.T, c *clinic) {
			c.sh(t, `vault auth enable -path=people approle`)
			otherAuthMount("people")(t, c)
		}, undo: sameAuthMount},
	{name: "class", check: "class", bar: []string{"auth-mount", "role", "key", "secret", "label", "opens", "source"},
		says:  "there is no SecretProviderClass web",
		wreck: sh(`kubectl -n demo delete secretproviderclass web`),
		undo:  func(t *testing.T, c *clinic) { c.apply(t, strings.TrimSuffix(webClass, "---")) }},
	{name: "parameters", check: "class", says: `rollName`, fix: "edit secretproviderclass web",
		wreck: patchClass(`{"rollName":"x"}`), undo: wholeClass},
	{name: "class of another provider", check: "class", says: `spec.provider is "vault"`,
		args:  []string{"--class", "web", "--service-account", "web"},
		wreck: sh(`kubectl -n demo patch secretproviderclass web --type=merge -p '{"spec":{"provider":"vault"}}'`),
		undo:  wholeClass},
	{name: "address that is not allowed", check: "class", says: "--vault-allowed-addresses",
		wreck: patchClass(`{"vaultAddress":"https://elsewhere:8200"}`), undo: wholeClass},
	{name: "service account", check: "service-account", bar: []string{"role", "login", "policy", "source"},
		says: "there is no service account web", fix: "create serviceaccount web", fixed: true,
		wreck: sh(`kubectl -n demo delete serviceaccount web`)},
	{name: "no role", check: "role", bar: []string{"audience", "login", "policy"},
		says:  "there is no auth/kubernetes/role/web-role",
		wreck: patchClass(`{"roleName":"web-role"}`), undo: wholeClass},
	{name: "role of another account", check: "role", says: `bound_service_account_names are ["nobody"]`,
		wreck: sh(`vault write ` + role + ` bound_service_account_names=nobody`),
		undo:  sh(`vault write ` + role + ` bound_service_account_names=web`)},
	{name: "role of another namespace", check: "role", says: `bound_service_account_namespaces are ["prod"]`,
		wreck: sh(`vault write ` + role + ` bound_service_account_namespaces=prod`),
		undo:  sh(`vault write ` + role + ` bound_service_account_namespaces=demo`)},
	{name: "audience", check: "audience", bar: []string{"login", "policy"},
		says:  "takes tokens for other, and the pod's is for vault",
		wreck: sh(`vault write ` + role + ` audience=other`), undo: sh(`vault write ` + role + ` audience=vault`)},
	{name: "login", check: "login", bar: []string{"policy"}, says: "cannot log in as role demo-web",
		fix:   "vault read auth/kubernetes/config",
		wreck: sh(`vault write auth/kubernetes/config kubernetes_host=https://127.0.0.1:1 disable_local_ca_jwt=true`),
		undo: func(t *testing.T, c *clinic) {
			check(t, c.vault.TrustAPIServer(t.Context(), "kubernetes", c.server, c.server.ReviewerToken(t)))
		}},
	{name: "policy", check: "policy", says: "no policy of role demo-web gives update on transit/decrypt/web",
		wreck: sh(`vault write ` + role + ` token_policies=none`),
		undo:  sh(`vault write ` + role + ` token_policies=secretmanager-app-web`)},
	{name: "policy, without a login", check: "policy", says: "gives update on transit/decrypt/web", fixed: false,
		args:  []string{"web-0", "--login=false"},
		wreck: sh(`vault write ` + role + ` token_policies=none`),
		undo:  sh(`vault write ` + role + ` token_policies=secretmanager-app-web`)},
	{name: "no key", check: "key", bar: []string{"opens"}, says: "there is no transit/keys/web",
		wreck: newKey(true), undo: encryptAgain},
	{name: "key that is not derived", check: "key", bar: []string{"opens"}, says: "not derived",
		wreck: newKey(false), undo: encryptAgain},
	{name: "scope none with a derived key", check: "key", says: "scope none does not work", fixed: true,
		wreck: func(t *testing.T, c *clinic) {
			patchClass(`{"scope":"none"}`)(t, c)
			c.sh(t, `kubectl -n demo annotate secret web secretmanager.io/scope=none --overwrite`)
		}, alone: true, undo: encryptAgain},
	{name: "Secret", check: "secret", bar: []string{"label", "opens", "source"}, says: "there is no Secret web",
		fix:   "secretmanager encrypt web -n demo --transit-key web --from-file ENTRY=FILE",
		wreck: sh(`kubectl -n demo delete secret web`), undo: encryptAgain},
	{name: "entry", check: "secret", says: `there is no entry "missing"`, fix: "--from-file missing=FILE",
		wreck: patchClass(`{"objects":"- objectName: missing\n- objectName: token\n"}`), undo: wholeClass},
	{name: "plaintext", check: "secret", says: `entry "token" is not ciphertext`,
		wreck: sh(`kubectl -n demo patch secret web --type=merge -p '{"stringData":{"token":"t0ken"}}'`), undo: encryptAgain},
	{name: "label", check: "label", says: "label secretmanager.io/transit-key is missing",
		fix: "kubectl -n demo label secret web secretmanager.io/transit-key=web", fixed: true,
		wreck: sh(`kubectl -n demo label secret web secretmanager.io/transit-key-`)},
	{name: "label of another key", check: "label", says: "says other, and transitKey of the class web",
		wreck: sh(`kubectl -n demo label secret web secretmanager.io/transit-key=other --overwrite`), undo: encryptAgain},
	{name: "copied ciphertext", check: "opens", says: `entry "password"`,
		fix: "--from-file password=FILE --from-file token=FILE",
		wreck: func(t *testing.T, c *clinic) {
			s, err := c.kube.CoreV1().Secrets("demo").Get(t.Context(), "web", metav1.GetOptions{})
			check(t, err)
			s.Data["password"], s.Data["token"] = s.Data["token"], s.Data["password"]
			_, err = c.kube.CoreV1().Secrets("demo").Update(t.Context(), s, metav1.UpdateOptions{})
			check(t, err)
		}, undo: encryptAgain},
	{name: "Secret of another name in the pod", check: "source",
		says: "nodePublishSecretRef names Secret other, and the class web", args: []string{"web-1"},
		wreck: func(t *testing.T, c *clinic) { another(t, c, "web-1", "{name: web}", "{name: other}") }},
	{name: "neither the kubelet nor the pod reads the Secret", check: "source", says: "may not get Secret web",
		args: []string{"web-2"},
		wreck: func(t *testing.T, c *clinic) {
			c.sh(t,
				`kubectl patch csidriver secrets-store.csi.k8s.io --type=merge -p '{"spec":{"tokenRequests":[{"audience":"vault"},{"audience":""}]}}'`)
			another(t, c, "web-2", "      nodePublishSecretRef: {name: web}\n", "")
			c.apply(t, strings.ReplaceAll(webMounted, "web-0", "web-2"))
		},
		undo: sh(`kubectl apply -f "$ROOT/manifests/driver/csidriver.yaml"`)},
	// Without a command: a pod is no reason to give the driver tokens for the API server.
	{name: "no token to read the Secret as the pod", check: "token-requests",
		says: `lacks the audience "" (the API server)`, args: []string{"web-7"},
		wreck: func(t *testing.T, c *clinic) {
			another(t, c, "web-7", "      nodePublishSecretRef: {name: web}\n", "")
			c.sh(t, `kubectl -n demo create role web-token --verb=get --resource=secrets --resource-name=web
				kubectl -n demo create rolebinding web-token --role=web-token --serviceaccount=demo:web`)
		},
		undo: sh(`kubectl -n demo delete role/web-token rolebinding/web-token`)},
	{name: "volume that can be written", check: "pod", says: "not readOnly: true", args: []string{"web-3"},
		wreck: func(t *testing.T, c *clinic) { another(t, c, "web-3", "readOnly: true", "readOnly: false") }},
	{name: "no volume", check: "pod", says: "no volume of the driver", args: []string{"web-4"},
		wreck: func(t *testing.T, c *clinic) {
			another(t, c, "web-4", "driver: secrets-store.csi.k8s.io", "driver: other.example")
		}},
	{name: "parameter of the pod", check: "role", says: "there is no auth/kubernetes/role/gone", args: []string{"web-6"},
		wreck: func(t *testing.T, c *clinic) {
			another(t, c, "web-6", "{secretProviderClass: web}", "{secretProviderClass: web, roleName: gone}")
		}},
	{name: "no pod", check: "pod", says: "there is no pod gone", args: []string{"pod/gone"},
		fix: "kubectl -n demo get pods", wreck: sh("true")},
	{name: "started before the mount", check: "mount", says: "what they see of it is empty",
		fix:   "kubectl -n demo delete pod web-0",
		wreck: func(t *testing.T, c *clinic) { c.startedAt(t, "web-0", time.Now().Add(-time.Hour)) },
		undo:  func(t *testing.T, c *clinic) { c.started(t, "web-0") }},
	{name: "stuck", check: "mount", says: "ago: VaultUnreachable: logging in to Vault",
		fix: "kubectl -n secretmanager-system logs", args: []string{"web-5"},
		wreck: func(t *testing.T, c *clinic) {
			another(t, c, "web-5", "{}", "{}")
			c.status(t, "demo", "web-5", corev1.PodStatus{Phase: corev1.PodPending})
			c.failedMount(t, "web-5",
				`MountVolume.SetUp failed for volume "secrets" : rpc error: code = Internal desc = VaultUnreachable: logging in to Vault: connection refused; check Vault`)
			_, err := c.kube.CoreV1().Events("demo").Create(t.Context(), &corev1.Event{
				ObjectMeta:     metav1.ObjectMeta{GenerateName: "web-5-"},
				InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "demo", Name: "web-5", UID: "of-an-older-pod"},
				Reason:         "FailedMount", Message: "another story", LastTimestamp: metav1.NewTime(time.Now().Add(time.Minute)),
			}, metav1.CreateOptions{})
			check(t, err)
		}},
}

// another makes a pod like web-0 that is a little different.
func another(t *testing.T, c *clinic, name, old, new string) {
	t.Helper()
	c.apply(t, strings.TrimSuffix(strings.ReplaceAll(strings.ReplaceAll(webPod, "web-0", name), old, new), "---"))
	c.started(t, name)
	c.apply(t, strings.ReplaceAll(webMounted, "web-0", name))
}

// TestDoctor breaks each check of a good installation in turn.
func TestDoctor(t *testing.T) {
	c := newClinic(t)
	if v := c.doctor(t, nil); v.code != cli.ExitToDo ||
		!slices.Equal(v.in(doctor.Broken), []string{"crds", "driver", "csidriver", "provider", "auth-mount"}) {
		t.Errorf("nothing installed: exit code %d\n%s", v.code, v)
	}
	c.install(t)
	well := func(t *testing.T, args ...string) {
		t.Helper()
		if v := c.doctor(t, nil, args...); v.code != cli.ExitDone || len(v.in(doctor.OK)) != len(v.checks) ||
			len(v.checks) < 13 {
			t.Fatalf("doctor %s: exit code %d\n%s", strings.Join(args, " "), v.code, v)
		}
	}
	well(t)
	well(t, "web-0")
	c.testPage(t)
	well(t, "--class", "web", "--service-account", "web")
	for _, b := range breakages {
		t.Run(b.name, func(t *testing.T) {
			if b.args == nil {
				b.args = []string{"web-0"}
			}
			b.wreck(t, c)
			v := c.doctor(t, nil, b.args...)
			if v.code != cli.ExitToDo || !slices.Equal(v.in(doctor.Broken), []string{b.check}) {
				t.Errorf("exit code %d, broken %q\n%s", v.code, v.in(doctor.Broken), v)
			}
			for _, l := range v.checks {
				if l.State == doctor.Unknown && (l.DependsOn != b.check || l.Detail != "depends on "+b.check) &&
					!slices.Contains(b.args, "--login=false") {
					t.Errorf("%s: %+v", l.Name, l)
				}
			}
			for _, name := range b.bar {
				if got := v.check(t, name); got.State != doctor.Unknown {
					t.Errorf("%s is %s", name, got.State)
				}
			}
			broken := v.check(t, b.check)
			if fixes := strings.Join(broken.Fixes, "\n"); !strings.Contains(broken.Detail, b.says) ||
				!strings.Contains(fixes, b.fix) {
				t.Errorf("detail: %s\nmends: %s", broken.Detail, fixes)
			}
			// What would give the class what it asks for is for others to decide.
			for _, grant := range []string{"vault-setup", "auth/kubernetes/role", "vault policy", "create role",
				"transit/keys", "sts.example"} {
				if fixes := strings.Join(broken.Fixes, "\n"); strings.Contains(fixes, grant) {
					t.Errorf("a command to copy grants what only the class asks for: %s", fixes)
				}
			}
			if len(broken.Fixes) == 0 && broken.Advice == "" {
				t.Error("nothing to do about it")
			}
			if b.fixed {
				for _, fix := range broken.Fixes {
					c.sh(t, fix)
				}
				after := c.doctor(t, nil, b.args...)
				if after.check(t, b.check).State != doctor.OK || !b.alone && after.code != cli.ExitDone {
					t.Errorf("after %q: exit code %d\n%s", broken.Fixes, after.code, after)
				}
			}
			if b.undo != nil {
				b.undo(t, c)
			}
			well(t, "web-0")
		})
	}
	t.Run("jwt mount", func(t *testing.T) { c.testJWT(t) })
	t.Run("policy that is too wide", func(t *testing.T) { c.testWide(t) })
	t.Run("few rights", func(t *testing.T) { c.testFewRights(t) })
	t.Run("plain HTTP", func(t *testing.T) { c.testPlainHTTP(t) })
	t.Run("Vault that does not answer", func(t *testing.T) { c.testSilence(t) })
	t.Run("another provider", func(t *testing.T) { c.testElsewhere(t) })
	t.Run("clock", func(t *testing.T) { c.testClock(t) })
	t.Run("texts", func(t *testing.T) { c.testText(t) })
}

// docs/reference/doctor.md has the checks that there are.
func (c *clinic) testPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/doctor.md")
	check(t, err)
	_, page, _ := strings.Cut(string(text), "## The checks")
	page, _, _ = strings.Cut(page, "## JSON")
	var rows, names []string
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ := strings.Cut(rest, "`")
			rows = append(rows, name)
		}
	}
	for _, l := range c.doctor(t, nil, "web-0").checks {
		names = append(names, l.Name)
	}
	slices.Sort(rows)
	slices.Sort(names)
	if diff := cmp.Diff(names, rows); diff != "" {
		t.Errorf("checks on the page (-there are +the page has):\n%s", diff)
	}
}

// A jwt mount has other fields in its roles, and other words for what it refuses.
func (c *clinic) testJWT(t *testing.T) {
	_, err := c.vault.Write(t.Context(), "auth/jwt/config", map[string]any{"jwt_validation_pubkeys": c.issuerKeys(t)})
	check(t, err)
	defer sameAuthMount(t, c)
	patchClass(`{"roleName":"demo-jwt"}`)(t, c)
	otherAuthMount("jwt")(t, c)
	broken := func(check, says string, env map[string]string) {
		t.Helper()
		v := c.doctor(t, env, "web-0")
		l := v.check(t, check)
		if !slices.Equal(v.in(doctor.Broken), []string{check}) || !strings.Contains(l.Detail, says) || l.Advice == "" {
			t.Errorf("%s", v)
		}
	}
	noToken := map[string]string{"VAULT_TOKEN": ""}
	broken("role", "there is no auth/jwt/role/demo-jwt", noToken)
	broken("role", "there is no auth/jwt/role/demo-jwt", nil)
	setup := func() {
		t.Helper()
		c.sh(t,
			`secretmanager vault-setup --transit-key web -n demo --service-account web --role demo-jwt --auth-mount jwt --apply`)
	}
	setup()
	bind := func(fields string) {
		t.Helper()
		c.sh(t, `vault write auth/jwt/role/demo-jwt role_type=jwt bound_claims_type=string `+fields)
	}
	bind(`bound_audiences=other`)
	broken("audience", "does not take tokens for vault", noToken)
	broken("audience", "takes tokens for other", nil)
	bind(`bound_subject=system:serviceaccount:demo:x`)
	broken("role", "does not take service account demo/web", noToken)
	broken("role", "bound_subject is system:serviceaccount:demo:x", nil)
	c.vaultDelete(t, "auth/jwt/role/demo-jwt")
	setup()
	if v := c.doctor(t, nil, "web-0"); v.code != cli.ExitDone {
		t.Errorf("%s", v)
	}
	// Where the settings of the provider cannot be seen, the mount is one that only the
	// class names, until the user does too.
	v := c.doctor(t, nil, "web-0", "--provider-namespace=elsewhere")
	if l := v.check(t, "auth-mount"); v.code != cli.ExitFailed || l.State != doctor.Unknown ||
		!strings.Contains(l.Advice, "--auth-mount") ||
		v.check(t, "policy").DependsOn != "auth-mount" {
		t.Errorf("exit code %d\n%s", v.code, v)
	}
	v = c.doctor(t, nil, "web-0", "--provider-namespace=elsewhere", "--auth-mount=jwt")
	if l := v.check(t, "policy"); l.State != doctor.OK {
		t.Errorf("exit code %d\n%s", v.code, v)
	}
}

// What is too wide works, and is said all the same.
func (c *clinic) testWide(t *testing.T) {
	c.sh(t, `secretmanager vault-setup --transit-key shop -n demo --service-account nobody --apply
		secretmanager encrypt shop -n demo --transit-key shop --from-literal a=b
		vault write `+role+` token_policies=secretmanager-app-web,secretmanager-app-shop`)
	warned := func(want string) {
		t.Helper()
		v := c.doctor(t, nil, "web-0")
		if l := v.check(t, "policy"); v.code != cli.ExitDone || !strings.Contains(strings.Join(l.Warnings, ""), want) {
			t.Errorf("exit code %d, %+v", v.code, l)
		}
	}
	warned("it may also decrypt with shop;")
	c.run(t, `path "transit/decrypt/*" { capabilities = ["update"] }`, "vault", "policy", "write", "wide", "-")
	c.sh(t, `vault write `+role+` token_policies=wide`)
	warned("it may decrypt with any key of transit;")
	c.sh(t, `vault write `+role+` token_policies=secretmanager-app-web`)
}

func (c *clinic) testFewRights(t *testing.T) {
	none := c.poor(t, "pauper")
	none["VAULT_TOKEN"] = ""
	seen := func(v visit, code int, unknown ...string) {
		t.Helper()
		if v.code != code || !slices.Equal(v.in(doctor.Unknown), unknown) || len(v.in(doctor.Broken)) > 0 {
			t.Errorf("exit code %d, unknown: %q\n%s", v.code, v.in(doctor.Unknown), v)
		}
	}
	seen(c.doctor(t, none), cli.ExitFailed, "driver", "rotation", "csidriver", "provider", "token-requests",
		"provider-nodes", "version")
	v := c.doctor(t, none, "web-0")
	seen(v, cli.ExitFailed, "driver", "rotation", "csidriver", "provider", "token-requests", "provider-nodes",
		"version", "pod")
	if l := v.check(t, "pod"); !strings.Contains(l.Detail, "you may not get pods -n demo") ||
		!strings.Contains(l.Advice, "kubectl auth can-i get pods -n demo") {
		t.Errorf("%+v", l)
	}
	v = c.doctor(t, none, "--class", "web")
	if v.code != cli.ExitFailed || len(v.in(doctor.Broken)) > 0 || v.check(t, "role").DependsOn != "class" {
		t.Errorf("exit code %d\n%s", v.code, v)
	}
	delete(none, "VAULT_TOKEN")
	none["VAULT_ADDR"] = ""
	if v := c.doctor(t, none); v.check(t, "vault").State != doctor.Unknown ||
		v.check(t, "vault-seal").DependsOn != "vault" {
		t.Errorf("%s", v)
	}

	// Who may make a token of the account learns from the login what it may not read.
	c.sh(t,
		`kubectl -n demo create role half --verb=get --resource=pods,secretproviderclasses.secrets-store.csi.x-k8s.io,serviceaccounts,secrets,secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io
		kubectl -n demo create role token --verb=create --resource=serviceaccounts/token
		kubectl -n demo create rolebinding half --role=half --serviceaccount=demo:nobody
		kubectl -n demo create rolebinding token --role=token --serviceaccount=demo:nobody`)
	half := c.poor(t, "nobody")
	half["VAULT_TOKEN"] = ""
	installation := []string{"driver", "rotation", "csidriver", "provider", "token-requests", "provider-nodes", "version"}
	seen(c.doctor(t, half, "web-0"), cli.ExitFailed, append(slices.Clone(installation), "opens")...)
	seen(c.doctor(t, half, "web-0", "--login=false"), cli.ExitFailed,
		append(slices.Clone(installation), "role", "audience", "login", "policy", "key", "opens")...)
	// What addresses the provider allows is not known to everybody.
	patchClass(`{"vaultAddress":"`+c.vault.Address+`"}`)(t, c)
	seen(c.doctor(t, half, "web-0"), cli.ExitFailed, append(slices.Clone(installation), "opens")...)
	wholeClass(t, c)
	c.sh(t, `kubectl -n demo delete rolebinding token`)
	v = c.doctor(t, half, "web-0")
	seen(v, cli.ExitFailed, append(slices.Clone(installation), "role", "audience", "login", "policy", "key", "opens")...)
	if l := v.check(t, "login"); l.Detail != "you may not create serviceaccounts --subresource=token -n demo" {
		t.Errorf("%+v", l)
	}
	c.sh(t, `kubectl -n demo create rolebinding token --role=token --serviceaccount=demo:nobody`)
	found := func(check, says string) {
		t.Helper()
		v := c.doctor(t, half, "web-0")
		if got := v.in(doctor.Broken); !slices.Equal(got, []string{check}) ||
			!strings.Contains(v.check(t, check).Detail, says) || v.code != cli.ExitToDo {
			t.Errorf("exit code %d\n%s", v.code, v)
		}
	}
	c.sh(t, `vault write `+role+` bound_service_account_names=x`)
	found("role", "service account name not authorized")
	c.sh(t, `vault write `+role+` bound_service_account_names=web audience=other`)
	found("audience", "does not take tokens for vault")
	c.sh(t, `vault write `+role+` audience=vault token_policies=none`)
	found("policy", "gives update on")
	c.sh(t, `vault write `+role+` token_policies=secretmanager-app-web`)
	newKey(false)(t, c)
	found("key", "is not derived")
	newKey(true)(t, c)
	found("key", "there is no transit/keys/web")
	encryptAgain(t, c)
	patchClass(`{"roleName":"gone"}`)(t, c)
	found("role", "there is no auth/kubernetes/role/gone")
	// Everybody is told that there is no such role.
	if v := c.doctor(t, half, "web-0", "--login=false"); !slices.Equal(v.in(doctor.Broken), []string{"role"}) {
		t.Errorf("%s", v)
	}
	wholeClass(t, c)

	// A token that has ended.
	if v := c.doctor(t, map[string]string{"VAULT_TOKEN": "hvs.ended"}, "web-0"); v.code != cli.ExitFailed ||
		!slices.Equal(v.in(doctor.Unknown), []string{"opens"}) {
		t.Errorf("exit code %d\n%s", v.code, v)
	}
	for name, config := range map[string]string{"no file": "/nowhere/kubeconfig", "nobody there": c.server.Kubeconfig} {
		args := []string{"web-0"}
		if name == "nobody there" {
			args = append(args, "--context=nowhere")
		}
		if v := c.doctor(t, map[string]string{"KUBECONFIG": config}, args...); v.code != cli.ExitFailed ||
			v.check(t, "cluster").State != doctor.Broken ||
			v.check(t, "driver").DependsOn != "cluster" || v.check(t, "vault").State != doctor.OK {
			t.Errorf("%s: exit code %d\n%s", name, v.code, v)
		}
	}
}

// Plain HTTP outside the loopback interface: doctor sends nothing that way unless it
// is told to, and reports a provider that does.
func (c *clinic) testPlainHTTP(t *testing.T) {
	plain := strings.Replace(c.vault.Address, "127.0.0.1", "0.0.0.0", 1)
	v := c.doctor(t, map[string]string{"VAULT_ADDR": plain}, "web-0")
	if l := v.check(t, "vault"); v.code != cli.ExitFailed || l.State != doctor.Unknown ||
		!strings.Contains(l.Detail, "plain HTTP") || v.check(t, "opens").DependsOn != "vault" {
		t.Errorf("not accepted: %s", v)
	}
	for name, accept := range map[string]func() visit{
		"flag": func() visit {
			return c.doctor(t, map[string]string{"VAULT_ADDR": plain}, "web-0", "--vault-insecure-http")
		},
		"environment": func() visit {
			return c.doctor(t, map[string]string{"VAULT_ADDR": plain, "SECRETMANAGER_VAULT_INSECURE_HTTP": "true"}, "web-0")
		},
	} {
		v := accept()
		if l := v.check(t, "vault"); v.code != cli.ExitDone ||
			!strings.Contains(strings.Join(l.Warnings, ""), "plain HTTP to "+plain) {
			t.Errorf("%s: %s", name, v)
		}
	}
	c.vaultIs(t, plain)
	defer c.vaultIs(t, c.vault.Address)
	v = c.doctor(t, nil, "web-0")
	if l := v.check(t, "provider"); l.State != doctor.Broken || !strings.Contains(l.Detail, "does not start with "+plain) {
		t.Errorf("the provider refuses: %s", v)
	}
	c.sh(t,
		`kubectl -n secretmanager-system set env daemonset/secretmanager-provider -c provider SECRETMANAGER_VAULT_INSECURE_HTTP=true`)
	v = c.doctor(t, nil, "web-0")
	if l := v.check(t, "provider"); l.State != doctor.OK ||
		!strings.Contains(strings.Join(l.Warnings, ""), "plain HTTP to "+plain) {
		t.Errorf("the provider accepts: %s", v)
	}
	c.sh(t,
		`kubectl -n secretmanager-system set env daemonset/secretmanager-provider -c provider SECRETMANAGER_VAULT_INSECURE_HTTP-`)
}

// A Vault that takes connections and says nothing costs one wait, not one per check.
func (c *clinic) testSilence(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer silent.Close()
	for name, address := range map[string]string{"silent": silent.Addr().String(), "closed": "127.0.0.1:1"} {
		began := time.Now()
		v := c.doctor(t, map[string]string{"VAULT_ADDR": "http://" + address}, "web-0")
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
		if !slices.Equal(v.in(doctor.Broken), []string{"vault"}) || v.check(t, "opens").DependsOn != "vault" ||
			v.check(t, "secret").State != doctor.OK {
			t.Errorf("%s: %s", name, v)
		}
	}
	// Where the provider looks for Vault is nobody's word here.
	v := c.doctor(t, map[string]string{"VAULT_ADDR": ""}, "web-0")
	if l := v.check(t, "vault"); v.code != cli.ExitFailed || l.State != doctor.Unknown ||
		!strings.Contains(l.Detail, "VAULT_ADDR is not set") || v.check(t, "opens").DependsOn != "vault" {
		t.Errorf("%s", v)
	}
	// Secrets are not read: where Vault is may be said there.
	for _, from := range []string{`"envFrom":[{"secretRef":{"name":"where"}}]`,
		`"env":[{"name":"VAULT_ADDR","valueFrom":{"secretKeyRef":{"name":"where","key":"a"}}}]`} {
		c.vaultIs(t, "")
		c.sh(t,
			`kubectl -n secretmanager-system patch daemonset secretmanager-provider -p '{"spec":{"template":{"spec":{"containers":[{"name":"provider",`+from+`}]}}}}'`)
		v := c.doctor(t, map[string]string{"VAULT_ADDR": ""})
		if l := v.check(t, "provider"); l.State != doctor.OK ||
			!strings.Contains(strings.Join(l.Warnings, ""), "cannot be seen: it may be in Secret where") ||
			v.check(t, "vault").State != doctor.Unknown {
			t.Errorf("%s: %s", from, v)
		}
		c.sh(t, `kubectl -n secretmanager-system set env daemonset/secretmanager-provider -c provider VAULT_ADDR-
			kubectl apply -k "$ROOT/manifests"`)
	}
	c.vaultIs(t, c.vault.Address)
	if v := c.doctor(t, map[string]string{"VAULT_ADDR": "http://127.0.0.1:1"}, "web-0", "--vault-addr",
		c.vault.Address); v.code != cli.ExitDone {
		t.Errorf("--vault-addr: exit code %d\n%s", v.code, v)
	}
	page := httptest.NewServer(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>eyJ") }))
	defer page.Close()
	if v := c.doctor(t, map[string]string{"VAULT_ADDR": page.URL},
		"web-0"); !strings.Contains(v.check(t, "vault").Detail, "is not Vault") {
		t.Errorf("%s", v)
	}
}

// Anybody who has a namespace can make a DaemonSet that looks like the provider.
func (c *clinic) testElsewhere(t *testing.T) {
	c.sh(t, `kubectl -n secretmanager-system get ds secretmanager-provider -o json >"$HOME/ds.json"
		sed -e 's/"namespace": "secretmanager-system"/"namespace": "demo"/' -e 's/"secretmanager-provider"/"zzz"/' \
			-e 's/"app.kubernetes.io\/name": "zzz"/"app.kubernetes.io\/name": "secretmanager-provider"/' "$HOME/ds.json" | kubectl -n demo create -f -`)
	defer c.sh(t, `kubectl -n demo delete ds zzz`)
	if v := c.doctor(t, nil, "web-0"); v.code != cli.ExitDone ||
		!strings.Contains(v.check(t, "provider").Detail, "DaemonSet secretmanager-system/") {
		t.Errorf("beside the provider: %s", v)
	}
	v := c.doctor(t, nil, "web-0", "--provider-namespace", "elsewhere")
	if l := v.check(t, "provider"); l.State != doctor.Unknown ||
		!strings.Contains(l.Detail, "is not in namespace elsewhere") || len(v.in(doctor.Broken)) > 0 {
		t.Errorf("without the provider: %s", v)
	}
}

// The real Vault has our clock, so one between tells another time.
func (c *clinic) testClock(t *testing.T) {
	var shift atomic.Int64 // a duration
	var refuse, logins atomic.Int32
	vault, err := relay.New(c.vault.Address, nil)
	if err != nil {
		t.Fatal(err)
	}
	vault.ModifyResponse = func(answer *http.Response) error {
		if !strings.HasSuffix(answer.Request.URL.Path, "/health") {
			return nil
		}
		var health map[string]any
		if err := json.NewDecoder(answer.Body).Decode(&health); err != nil {
			return err
		}
		health["server_time_utc"] = time.Now().Add(time.Duration(shift.Load())).Unix()
		text, err := json.Marshal(health)
		answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
		answer.Header.Del("Content-Length")
		return err
	}
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuse := int(refuse.Load()); refuse > 0 && strings.HasSuffix(r.URL.Path, "/login") {
			logins.Add(1)
			http.Error(w, `{"errors":["permission denied"]}`, refuse)
			return
		}
		vault.ServeHTTP(w, r)
	}))
	defer between.Close()
	env := map[string]string{"VAULT_ADDR": between.URL}
	shift.Store(int64(5 * time.Second))
	if v := c.doctor(t, env, "web-0"); v.code != cli.ExitDone {
		t.Errorf("%s: %s", time.Duration(shift.Load()), v)
	}
	apart := func(want string) visit {
		t.Helper()
		v := c.doctor(t, env, "web-0")
		if !slices.Equal(v.in(doctor.Broken), []string{"vault-clock"}) ||
			!strings.Contains(v.check(t, "vault-clock").Detail, want) {
			t.Errorf("%s: %s", time.Duration(shift.Load()), v)
		}
		return v
	}
	shift.Store(-int64(5 * time.Minute))
	apart("behind ours")
	shift.Store(int64(5 * time.Minute))
	if v := apart("ahead of ours"); v.check(t, "login").State != doctor.OK {
		t.Errorf("%s", v)
	}
	// A login that is refused then may be for that.
	for _, status := range []int32{http.StatusForbidden, http.StatusInternalServerError} {
		refuse.Store(status)
		logins.Store(0)
		if v := apart("ahead of ours"); v.check(t, "login").DependsOn != "vault-clock" ||
			v.check(t, "policy").DependsOn != "vault-clock" {
			t.Errorf("%s", v)
		}
		// One for the mount, one for the account: nobody waits here for better times.
		if n := logins.Load(); n != 2 {
			t.Errorf("HTTP %d: %d logins", status, n)
		}
	}
}

// What people see.
func (c *clinic) testText(t *testing.T) {
	c.sh(t, `kubectl -n demo label secret web secretmanager.io/transit-key-`)
	defer encryptAgain(t, c)
	out, _ := c.command(t.Context(), "", c.env, "secretmanager", "doctor", "web-0", "-n", "demo").CombinedOutput()
	for _, want := range []string{
		"installation\n  ok       cluster          Kubernetes v1.34.4 at https://",
		"\n\npod demo/web-0\n  ok       pod              Running on node node-1\n",
		"\n\nclass demo/web\n  ok       class            role demo-web, key transit/keys/web, Secret web, scope strict\n",
		"\n  broken   label            label secretmanager.io/transit-key is missing",
		"fix: kubectl -n demo label secret web secretmanager.io/transit-key=web\n",
		"\nerror: 1 check is broken: label\n",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "\x1b") {
		t.Error("colours without a terminal")
	}
}
