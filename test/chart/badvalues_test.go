package chart

import (
	"fmt"
	"strings"
	"testing"
)

// TestBadValues: what is wrong with values is said in words that help, before
// anything is installed.
func TestBadValues(t *testing.T) {
	for _, test := range []struct {
		name, values string
		want         []string
	}{
		{"a mistyped value", `rotater: {cluster: true}`, []string{"rotater", "not allowed"}},
		{"a mistyped value of a part", `provider: {priorityClass: high}`, []string{"/provider", "priorityClass", "not allowed"}},
		{"a mistyped value deep inside", `vault: {ca: {secretName: a}}`, []string{"/vault/ca", "secretName", "not allowed"}},
		{"a part in place of a value", `vault: https://vault:8200`, []string{"vault", "object"}},
		{"an address without a scheme", `vault: {address: "vault:8200"}`, []string{"/vault/address", "https?://"}},
		{"a digest that is none", `image: {digest: "sha256:abc"}`, []string{"/image/digest", "sha256:[0-9a-f]{64}"}},
		{"a repository with a tag", `image: {repository: "secretmanager:v1"}`, []string{"/image/repository"}},
		{"a pull policy that there is not", `image: {pullPolicy: Sometimes}`, []string{"/image/pullPolicy", "IfNotPresent"}},
		{"a pull secret by its name alone", `imagePullSecrets: [registry]`, []string{"/imagePullSecrets/0", "object"}},
		{"our own labels", `commonLabels: {app.kubernetes.io/name: x}`, []string{"/commonLabels/app.kubernetes.io", "name"}},
		{"a name that is none", `name: Secret_Manager`, []string{"/name"}},
		{"a mount beyond the kubelet's patience", `provider: {mountTimeoutSeconds: 120}`, []string{"/provider/mountTimeoutSeconds", "110"}},
		{"a level that there is not", `provider: {logLevel: trace}`, []string{"/provider/logLevel", "debug"}},
		{"a further flag that is none", `provider: {extraArgs: [log-level=debug]}`, []string{"/provider/extraArgs/0", "^--"}},
		{"a toleration that is none", `provider: {tolerations: [{operators: Exists}]}`, []string{"/provider/tolerations/0", "operators"}},
		{"a resource that is none", `provider: {resources: {limit: {memory: 1Gi}}}`, []string{"/provider/resources", "limit"}},
		{"a quantity that is none", `rotator: {resources: {limits: {memory: 1GB}}}`, []string{"/rotator/resources/limits/memory"}},
		{"a duration without its unit", `rotator: {maxKeyAge: "23"}`, []string{"/rotator/maxKeyAge"}},
		{"a namespace that is none", `rotator: {namespaces: ["*"]}`, []string{"/rotator/namespaces/0"}},
		{"a namespace twice", `rotator: {namespaces: [demo, demo]}`, []string{"/rotator/namespaces", "equal"}},
		{"a boolean in quotes", `rotator: {cluster: "true"}`, []string{"/rotator/cluster", "boolean"}},

		{"an audit log at no absolute path", `provider: {auditLog: audit.log}`, []string{"/provider/auditLog"}},
		{"an auth mount with a comma", `provider: {allowedAuthMounts: ["a,b"]}`, []string{"/provider/allowedAuthMounts/0"}},
		{"a Vault namespace that is empty", `provider: {allowedNamespaces: [""]}`, []string{"/provider/allowedNamespaces/0"}},
		{"no ports to connect to", `networkPolicy: {egress: {enabled: true, ports: []}}`, []string{"/networkPolicy/egress/ports"}},
		{"a port by its number alone", `networkPolicy: {egress: {ports: [53]}}`, []string{"/networkPolicy/egress/ports/0", "object"}},

		{"a part taken away", `vault: {ca: null}`, []string{"/vault", "missing property 'ca'"}},
		{"a value taken away", `provider: {logLevel: null}`, []string{"/provider", "missing property 'logLevel'"}},

		{"plain HTTP", `vault: {address: "http://vault.vault.svc:8200"}`, []string{"vault.address is http://vault.vault.svc:8200", "vault.insecureHTTP: true"}},
		{"plain HTTP to a name that says it is local", `vault: {address: "http://127.0.0.1.example:8200"}`, []string{"vault.address is http://127.0.0.1.example:8200"}},
		{"plain HTTP to a name below localhost", `vault: {address: "http://vault.localhost:8200"}`, []string{"vault.address is http://vault.localhost:8200"}},
		{"plain HTTP behind a user's name", `vault: {address: "http://localhost@vault:8200"}`, []string{"vault.address is http://localhost@vault:8200"}},
		{"plain HTTP where a class says so", `provider: {allowedAddresses: ["https://a", "http://b:8200"]}`, []string{"provider.allowedAddresses is http://b:8200"}},
		{"nothing", `{provider: {enabled: false}, rotator: {enabled: false}}`, []string{"provider.enabled and rotator.enabled are both false"}},
		{"two places for the CA", `vault: {ca: {secret: a, configMap: b}}`, []string{"vault.ca.secret and vault.ca.configMap are both set", "Remove the other"}},
		{"both scopes", `rotator: {cluster: true, namespaces: [demo]}`, []string{"rotator.cluster is true and rotator.namespaces is not empty", "Choose one"}},
		{"retiring without seeing all", `rotator: {namespaces: [demo], retire: {enabled: true}}`, []string{"rotator.retire needs rotator.cluster: true"}},
		{"trimming without seeing all", `rotator: {namespaces: [demo], retire: {trim: true}}`, []string{"rotator.retire needs rotator.cluster: true"}},
		{"both monitors", `monitoring: {podMonitor: {enabled: true}, serviceMonitor: {enabled: true}}`, []string{"scraped and counted twice"}},
		{"a limit that cannot be read", `provider: {resources: {limits: {memory: 300M}}}`, []string{`provider.resources.limits.memory is "300M"`, "256Mi"}},
		{"a cache beyond the limit", `provider: {republishCache: 200Mi}`, []string{"provider.republishCache is 200Mi", "limit of at least 475Mi"}},
		{"several at once", `vault: {ca: {secret: a, configMap: b}}
rotator: {cluster: true, namespaces: [demo]}`, []string{"vault.ca", "rotator.cluster"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := newHelm(t).Template(t.Context(), manifestNamespace, test.values)
			if err == nil {
				t.Fatal("it is rendered")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not have %q:\n%v", want, err)
				}
			}
		})
	}
}

// TestAdviceHolds: the limit that is advised for a cache is enough for it.
func TestAdviceHolds(t *testing.T) {
	for limit, ok := range map[int]bool{474: false, 475: true} {
		_, err := newHelm(t).Template(t.Context(), manifestNamespace, fmt.Sprintf("provider: {republishCache: 200Mi, resources: {limits: {memory: %dMi}}}", limit))
		if (err == nil) != ok {
			t.Errorf("a limit of %dMi: %v", limit, err)
		}
	}
}
