package chart

import (
	"fmt"
	"strings"
	"testing"
)

// badValues are rejected before anything is installed, with an error that names the value.
var badValues = []struct {
	name, values string
	want         []string
}{
	{"mistyped", `rotater: {cluster: true}`, []string{"rotater", "not allowed"}},
	{"mistyped in a component", `provider: {priorityClass: high}`, []string{"/provider", "priorityClass", "not allowed"}},
	{"mistyped in a nested value", `vault: {ca: {secretName: a}}`, []string{"/vault/ca", "secretName", "not allowed"}},
	{"string instead of an object", `vault: https://vault:8200`, []string{"vault", "object"}},
	{"address without a scheme", `vault: {address: "vault:8200"}`, []string{"/vault/address", "https?://"}},
	{"invalid digest", `image: {digest: "sha256:abc"}`, []string{"/image/digest", "sha256:[0-9a-f]{64}"}},
	{"repository with a tag", `image: {repository: "secretmanager:v1"}`, []string{"/image/repository"}},
	{"registry with a slash at its end", `image: {registry: "a/"}`, []string{"/image/registry"}},
	{"global registry that is a list", `global: {imageRegistry: [a]}`, []string{"/global/imageRegistry"}},
	{"unknown pull policy", `image: {pullPolicy: Sometimes}`, []string{"/image/pullPolicy", "IfNotPresent"}},
	{"pull secret without a key", `imagePullSecrets: [registry]`, []string{"/imagePullSecrets/0", "object"}},
	{"name in capitals", `nameOverride: Secret_Manager`, []string{"/nameOverride"}},
	{"full name that is too long", `fullnameOverride: ` + strings.Repeat("a", 41), []string{"/fullnameOverride", "40"}},
	{"provider without a name", `provider: {name: ""}`, []string{"/provider/name"}},
	{"extra object that is a number", `extraObjects: [1]`, []string{"/extraObjects/0"}},
	{"mount longer than the kubelet waits", `provider: {mountTimeoutSeconds: 120}`,
		[]string{"/provider/mountTimeoutSeconds", "110"}},
	{"unknown log level", `provider: {logLevel: trace}`, []string{"/provider/logLevel", "debug"}},
	{"extra flag without hyphens", `provider: {extraArgs: [log-level=debug]}`, []string{"/provider/extraArgs/0", "^--"}},
	{"extra volume without a name", `rotator: {extraVolumes: [{emptyDir: {}}]}`,
		[]string{"/rotator/extraVolumes/0", "name"}},
	{"mistyped mount", `provider: {extraVolumeMounts: [{name: a, path: /a}]}`, []string{"/provider/extraVolumeMounts/0"}},
	{"mistyped toleration", `provider: {tolerations: [{operators: Exists}]}`,
		[]string{"/provider/tolerations/0", "operators"}},
	{"mistyped resources", `provider: {resources: {limit: {memory: 1Gi}}}`, []string{"/provider/resources", "limit"}},
	{"invalid quantity", `rotator: {resources: {limits: {memory: 1GB}}}`, []string{"/rotator/resources/limits/memory"}},
	{"mistyped service account", `exporter: {serviceAccount: {named: a}}`, []string{"/exporter/serviceAccount", "named"}},
	{"mistyped pod security context", `rotator: {podSecurityContext: {runAsuser: 1}}`,
		[]string{"/rotator/podSecurityContext", "runAsuser"}},
	{"field of pods for a container", `provider: {securityContext: {fsGroup: 1}}`,
		[]string{"/provider/securityContext", "fsGroup"}},
	{"mistyped SELinux options", `provider: {securityContext: {seLinuxOptions: {kind: spc_t}}}`,
		[]string{"/provider/securityContext/seLinuxOptions", "kind"}},
	{"handler of a probe", `provider: {livenessProbe: {httpGet: {path: /}}}`,
		[]string{"/provider/livenessProbe", "httpGet"}},
	{"unknown update strategy", `provider: {updateStrategy: {type: Recreate}}`, []string{"/provider/updateStrategy/type"}},
	{"unknown update strategy of the exporter", `exporter: {updateStrategy: {type: OnDelete}}`,
		[]string{"/exporter/updateStrategy/type"}},
	{"surge that is no number", `provider: {updateStrategy: {rollingUpdate: {maxSurge: all}}}`,
		[]string{"/provider/updateStrategy/rollingUpdate/maxSurge"}},
	{"port out of range", `provider: {metricsPort: 70000}`, []string{"/provider/metricsPort", "65,535"}},
	{"unknown DNS policy", `rotator: {dnsPolicy: None}`, []string{"/rotator/dnsPolicy"}},
	{"host network of the exporter", `exporter: {hostNetwork: true}`, []string{"/exporter", "hostNetwork"}},
	{"settle without a unit", `rotator: {settle: "30"}`, []string{"/rotator/settle"}},
	{"duration without a unit", `rotator: {maxKeyAge: "23"}`, []string{"/rotator/maxKeyAge"}},
	{"wildcard namespace", `rotator: {namespaces: ["*"]}`, []string{"/rotator/namespaces/0"}},
	{"namespace twice", `rotator: {namespaces: [demo, demo]}`, []string{"/rotator/namespaces", "equal"}},
	{"boolean in quotes", `rotator: {cluster: "true"}`, []string{"/rotator/cluster", "boolean"}},
	{"relative audit log", `provider: {auditLog: audit.log}`, []string{"/provider/auditLog"}},
	{"auth mount with a comma", `provider: {allowedAuthMounts: ["a,b"]}`, []string{"/provider/allowedAuthMounts/0"}},
	{"pattern of inline authentication", `provider: {inlineAuth: ["jwt*"]}`, []string{"/provider/inlineAuth/0"}},
	{"empty Vault namespace", `provider: {allowedNamespaces: [""]}`, []string{"/provider/allowedNamespaces/0"}},
	{"no ports", `networkPolicy: {egress: {enabled: true, ports: []}}`, []string{"/networkPolicy/egress/ports"}},
	{"port that is not an object", `networkPolicy: {egress: {ports: [53]}}`,
		[]string{"/networkPolicy/egress/ports/0", "object"}},

	{"inline authentication that is not allowed", `provider: {allowedAuthMounts: [jwt], inlineAuth: [jwt, k8s]}`,
		[]string{"provider.inlineAuth has k8s", "provider.allowedAuthMounts"}},
	{"plain HTTP", `vault: {address: "http://vault.vault.svc:8200"}`,
		[]string{"vault.address is http://vault.vault.svc:8200", "vault.insecureHTTP: true"}},
	{"plain HTTP to a name like the loopback address", `vault: {address: "http://127.0.0.1.example:8200"}`,
		[]string{"vault.address is http://127.0.0.1.example:8200"}},
	{"plain HTTP to a subdomain of localhost", `vault: {address: "http://vault.localhost:8200"}`,
		[]string{"vault.address is http://vault.localhost:8200"}},
	{"plain HTTP with a user name", `vault: {address: "http://localhost@vault:8200"}`,
		[]string{"vault.address is http://localhost@vault:8200"}},
	{"plain HTTP of one address", `vault: {addresses: ["https://a", "http://b:8200"]}`,
		[]string{"vault.addresses is http://b:8200"}},
	{"two addresses in one", `vault: {addresses: ["https://a,https://b"]}`, []string{"/vault/addresses/0"}},
	{"plain HTTP for classes", `provider: {allowedAddresses: ["https://a", "http://b:8200"]}`,
		[]string{"provider.allowedAddresses is http://b:8200"}},
	{"no components", `{provider: {enabled: false}, rotator: {enabled: false}}`,
		[]string{"provider.enabled and rotator.enabled are both false"}},
	{"two sources of the CA", `vault: {ca: {secret: a, configMap: b}}`,
		[]string{"vault.ca.secret and vault.ca.configMap are both set", "Remove the other"}},
	{"service account without a name", `rotator: {serviceAccount: {create: false}}`,
		[]string{"rotator.serviceAccount.create is false and rotator.serviceAccount.name is empty", "default"}},
	{"shared service account", `{rotator: {serviceAccount: {name: a}}, exporter: {serviceAccount: {name: a}}}`,
		[]string{"rotator.serviceAccount.name and exporter.serviceAccount.name are both a"}},
	{"service account of another component", `provider: {serviceAccount: {name: secretmanager-rotator}}`,
		[]string{"provider.serviceAccount.name and rotator.serviceAccount.name are both secretmanager-rotator"}},
	{"host network with a surge", `provider: {hostNetwork: true}`,
		[]string{"provider.hostNetwork needs", "maxSurge: 0, maxUnavailable: 1"}},
	{"host network with a surge in percent",
		`provider: {hostNetwork: true, updateStrategy: {rollingUpdate: {maxSurge: 10%, maxUnavailable: 0}}}`,
		[]string{"provider.hostNetwork needs"}},
	{"one port for two endpoints", `provider: {healthPort: 9090}`,
		[]string{"provider.healthPort and provider.metricsPort are both 9090"}},
	{"variable twice", `rotator: {extraEnv: [{name: A, value: b}, {name: A, value: c}]}`,
		[]string{"rotator.extraEnv has two entries with the same name: A, A"}},
	{"mount twice", `provider: {extraVolumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /a}]}`,
		[]string{"provider.extraVolumeMounts has two entries with the same mountPath"}},
	{"both scopes", `rotator: {cluster: true, namespaces: [demo]}`,
		[]string{"rotator.cluster is true and rotator.namespaces is not empty", "Choose one"}},
	{"retirement without a scope", `rotator: {retire: {enabled: true, onlyUser: true}}`,
		[]string{"rotator.retire needs rotator.cluster: true"}},
	{"retirement of a key of all namespaces", `
rotator: {namespaces: [demo], transitKeys: [a=demo, b], retire: {enabled: true, onlyUser: true}}`,
		[]string{"to retire versions of b: its Secrets may be in every namespace"}},
	{"retirement of a key of another namespace", `
rotator: {namespaces: [demo], transitKeys: ["a=demo,shop"], retire: {enabled: true, onlyUser: true}}`,
		[]string{"to retire versions of a=demo,shop: its Secrets may be in namespace shop"}},
	{"retirement of a key that others may use", `rotator: {cluster: true, retire: {enabled: true}}`,
		[]string{"rotator.retire needs rotator.retire.onlyUser: true", "no other cluster"}},
	{"retirement of a key that others use", `rotator: {cluster: true, retire: {enabled: true, onlyUser: false}}`,
		[]string{"rotator.retire needs rotator.retire.onlyUser: true"}},
	{"only user in quotes", `rotator: {retire: {onlyUser: "true"}}`, []string{"/rotator/retire/onlyUser", "boolean"}},
	{"weekly retirement", `
rotator: {cluster: true, schedule: "0 3 * * 0", retire: {enabled: true, onlyUser: true}}`,
		[]string{`needs a run every day, and rotator.schedule is "0 3 * * 0"`, "rotator.maxGap (48h)"}},
	{"monthly retirement", `
rotator: {cluster: true, schedule: "0 3  1 * *", retire: {enabled: true, onlyUser: true}}`,
		[]string{`needs a run every day`}},
	{"retirement in one month", `
rotator: {cluster: true, schedule: "0 3 * JAN *", retire: {enabled: true, onlyUser: true}}`,
		[]string{`needs a run every day`}},
	{"retirement by a name for weekly", `
rotator: {cluster: true, schedule: "@weekly", retire: {enabled: true, onlyUser: true}}`,
		[]string{`needs a run every day, and rotator.schedule is "@weekly"`}},
	{"trimming", `rotator: {cluster: true, retire: {enabled: true, trim: true}}`,
		[]string{"'trim' not allowed"}},
	{"all keys", `rotator: {transitKeys: ["*"]}`, []string{"/rotator/transitKeys/0"}},
	{"all keys of a mount", `rotator: {transitKeys: [transit/*]}`, []string{"/rotator/transitKeys/0"}},
	{"key without a name", `rotator: {transitKeys: [transit/=demo]}`, []string{"/rotator/transitKeys/0"}},
	{"key of an invalid namespace", `rotator: {transitKeys: [a=Demo]}`, []string{"/rotator/transitKeys/0"}},
	{"key of no namespace", `rotator: {transitKeys: ["a=demo,"]}`, []string{"/rotator/transitKeys/0"}},
	{"gap without a unit", `rotator: {maxGap: "48"}`, []string{"/rotator/maxGap"}},
	{"both monitors", `monitoring: {podMonitor: {enabled: true}, serviceMonitor: {enabled: true}}`,
		[]string{"count everything twice"}},
	{"alerts without the exporter", `{exporter: {enabled: false}, monitoring: {prometheusRule: {enabled: true}}}`,
		[]string{"monitoring.prometheusRule.enabled needs exporter.enabled"}},
	{"limit that is not in Mi or Gi", `provider: {resources: {limits: {memory: 300M}}}`,
		[]string{`provider.resources.limits.memory is "300M"`, "256Mi"}},
	{"cache that exceeds the limit", `provider: {republishCache: 200Mi}`,
		[]string{"provider.republishCache is 200Mi", "limit of at least 475Mi"}},
	{"several problems", `{vault: {ca: {secret: a, configMap: b}}, rotator: {cluster: true, namespaces: [demo]}}`,
		[]string{"vault.ca", "rotator.cluster"}},
}

// TestBadValues checks that invalid values are errors.
func TestBadValues(t *testing.T) {
	for _, test := range badValues {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := newHelm(t).Template(t.Context(), manifestNamespace, test.values)
			if err == nil {
				t.Fatal("the values are accepted")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not contain %q:\n%v", want, err)
				}
			}
		})
	}
}

// TestReservedLabels: no value can replace a standard label.
func TestReservedLabels(t *testing.T) {
	for _, label := range standardLabels {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			for path, values := range map[string]string{
				"/commonLabels":                 `commonLabels: {%s: x}`,
				"/provider/podLabels":           `provider: {podLabels: {%s: x}}`,
				"/monitoring/podMonitor/labels": `monitoring: {podMonitor: {labels: {%s: x}}}`,
			} {
				_, err := newHelm(t).Template(t.Context(), manifestNamespace, fmt.Sprintf(values, label))
				if err == nil || !strings.Contains(err.Error(), path+"/"+strings.ReplaceAll(label, "/", "~1")) {
					t.Errorf("%s: %v", path, err)
				}
			}
		})
	}
}

// TestAdvisedLimit: the memory limit that the error about a large cache advises is enough, and a smaller one is not.
func TestAdvisedLimit(t *testing.T) {
	for limit, valid := range map[int]bool{474: false, 475: true} {
		values := fmt.Sprintf("provider: {republishCache: 200Mi, resources: {limits: {memory: %dMi}}}", limit)
		if _, err := newHelm(t).Template(t.Context(), manifestNamespace, values); (err == nil) != valid {
			t.Errorf("a limit of %dMi: %v", limit, err)
		}
	}
}
