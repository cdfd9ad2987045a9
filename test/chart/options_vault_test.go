package chart

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// vaultOptions are values of the connections to Vault.
var vaultOptions = []option{
	{"Vault", `
vault:
  address: https://vault.example:8200
  namespace: team/a
  authMount: k8s/prod
  audience: https://vault.example
  tlsServerName: vault
provider: {allowedAddresses: ["https://a.example:8200", "https://b.example:8200"]}`, func(t *testing.T, r *rendered) {
		vault := object[*corev1.ConfigMap](t, r, "ConfigMap secretmanager-vault")
		if got := vault.Data["VAULT_ADDR"]; got != "https://vault.example:8200" {
			t.Errorf("VAULT_ADDR=%s", got)
		}
		for _, pod := range r.vaultPods() {
			hasArgs(t, pod, "--vault-namespace=team/a", "--vault-auth-mount=k8s/prod", "--vault-tls-server-name=vault")
			if from := pod.Containers[0].EnvFrom; len(from) != 1 || from[0].ConfigMapRef.Name != "secretmanager-vault" {
				t.Errorf("container %s has its environment from %+v", pod.Containers[0].Name, from)
			}
		}
		hasArgs(t, r.providerPod(), "--audience=https://vault.example",
			"--vault-allowed-addresses=https://a.example:8200,https://b.example:8200")
		token := mounted(t, r.rotatorPod(), "/var/run/secrets/vault").Projected.Sources[0].ServiceAccountToken
		if token.Audience != "https://vault.example" {
			t.Errorf("the token of the rotator has the audience %q", token.Audience)
		}
	}},
	{"several addresses", `
vault: {addresses: ["https://a.example:8200", "http://127.0.0.1:8200"]}`, func(t *testing.T, r *rendered) {
		vault := object[*corev1.ConfigMap](t, r, "ConfigMap secretmanager-vault")
		if got := vault.Data["VAULT_ADDR"]; got != "https://a.example:8200,http://127.0.0.1:8200" {
			t.Errorf("VAULT_ADDR=%s", got)
		}
	}},
	{"plain HTTP", `
vault: {address: "http://vault:8200", insecureHTTP: true}
provider: {allowedAddresses: ["http://a:8200"]}`, func(t *testing.T, r *rendered) {
		for _, pod := range r.vaultPods() {
			hasArgs(t, pod, "--vault-insecure-http")
		}
	}},
	{"plain HTTP on the loopback interface", `
vault: {address: "http://127.0.0.1:8200/tools"}
provider: {allowedAddresses: ["http://localhost", "http://[::1]:8200"]}`, func(t *testing.T, r *rendered) {
		for _, pod := range r.vaultPods() {
			lacksArgs(t, pod, "--vault-insecure-http")
		}
	}},
	{"auth mounts and Vault namespaces", `
provider: {allowedAuthMounts: [jwt, k8s/prod], allowedNamespaces: [team/a, team/b]}`, func(t *testing.T, r *rendered) {
		hasArgs(t, r.providerPod(), "--vault-allowed-auth-mounts=jwt,k8s/prod", "--vault-allowed-namespaces=team/a,team/b")
	}},
	{"inline authentication", `
provider: {allowedAuthMounts: [jwt, k8s/prod], inlineAuth: [kubernetes, k8s/prod]}`, func(t *testing.T, r *rendered) {
		hasArgs(t, r.providerPod(), "--vault-inline-auth=kubernetes,k8s/prod")
	}},
	{"audience of the API server", `vault: {audience: ""}`, func(t *testing.T, r *rendered) {
		hasArgs(t, r.providerPod(), "--audience=")
	}},
	{"CA in a ConfigMap, client certificate", `
vault: {ca: {configMap: vault-ca}, clientCertificate: {secret: vault-client}}`, func(t *testing.T, r *rendered) {
		for _, pod := range r.vaultPods() {
			hasArgs(t, pod, "--vault-ca-cert=/etc/secretmanager/vault-ca/ca.crt",
				"--vault-client-cert=/etc/secretmanager/vault-client/tls.crt",
				"--vault-client-key=/etc/secretmanager/vault-client/tls.key")
			if v := mounted(t, pod, "/etc/secretmanager/vault-ca"); v.ConfigMap == nil || v.ConfigMap.Name != "vault-ca" {
				t.Errorf("the CA certificates are from %+v", v)
			}
			v := mounted(t, pod, "/etc/secretmanager/vault-client")
			if v.Secret == nil || v.Secret.SecretName != "vault-client" {
				t.Errorf("the client certificate is from %+v", v)
			}
		}
	}},
	{"CA in a Secret, keys of Secrets", `
vault:
  ca: {secret: vault-ca, key: root.pem}
  clientCertificate: {secret: vault-client, certificateKey: c.pem, privateKeyKey: k.pem}`,
		func(t *testing.T, r *rendered) {
			for _, pod := range r.vaultPods() {
				hasArgs(t, pod, "--vault-ca-cert=/etc/secretmanager/vault-ca/root.pem",
					"--vault-client-cert=/etc/secretmanager/vault-client/c.pem",
					"--vault-client-key=/etc/secretmanager/vault-client/k.pem")
				if v := mounted(t, pod, "/etc/secretmanager/vault-ca"); v.Secret == nil || v.Secret.SecretName != "vault-ca" {
					t.Errorf("the CA certificates are from %+v", v)
				}
			}
		}},
	{"existing ConfigMap", `vault: {existingConfigMap: ours}`, func(t *testing.T, r *rendered) {
		if r.objects["ConfigMap secretmanager-vault"] != nil {
			t.Error("the release has a ConfigMap of its own")
		}
		for _, pod := range r.vaultPods() {
			if got := pod.Containers[0].EnvFrom[0].ConfigMapRef.Name; got != "ours" {
				t.Errorf("container %s has its environment from %s", pod.Containers[0].Name, got)
			}
		}
	}},
}
