package chart

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// options is what each option does. Everything said of an option on the page and in
// values.yaml is here.
var options = []struct {
	name   string
	values string
	check  func(t *testing.T, r *rendered)
}{
	{"nothing", ``, func(t *testing.T, r *rendered) {
		want := []string{
			"ClusterRole secretmanager-rotator", "ConfigMap secretmanager-rotation", "ConfigMap secretmanager-vault",
			"CronJob secretmanager-rotator", "DaemonSet secretmanager-provider", "Deployment secretmanager-exporter",
			"Lease secretmanager-rotation",
			"NetworkPolicy secretmanager-exporter", "NetworkPolicy secretmanager-provider", "NetworkPolicy secretmanager-rotator",
			"Role secretmanager-exporter", "Role secretmanager-rotator",
			"RoleBinding secretmanager-exporter", "RoleBinding secretmanager-rotator",
			"ServiceAccount secretmanager-exporter", "ServiceAccount secretmanager-provider", "ServiceAccount secretmanager-rotator",
		}
		if got := r.names(); !slices.Equal(got, want) {
			t.Errorf("there are %q, want %q", got, want)
		}
		// Without a scope it would fail every night.
		if s := r.rotator.Spec.Suspend; s == nil || !*s {
			t.Error("the rotator is not suspended")
		}
		lacksArgs(t, r.providerPod(), "--vault-", "--audience", "--mount-timeout", "--republish", "--log-level")
		lacksArgs(t, r.rotatorPod(), "--namespace", "--retire", "--trim", "--transit-key", "--state-namespace", "--vault-ca")
		if got := env(r.providerPod(), "GOMEMLIMIT"); got != "216MiB" {
			t.Errorf("GOMEMLIMIT is %s", got)
		}
		if e := r.providerPod().Containers[0].Env; !slices.ContainsFunc(e, func(e corev1.EnvVar) bool {
			return e.Name == "NODE_NAME" && e.ValueFrom != nil && e.ValueFrom.FieldRef.FieldPath == "spec.nodeName"
		}) {
			t.Errorf("the provider does not know its node: %v", e)
		}
	}},
	{"image by tag", `image: {repository: "registry.example:5000/team/secretmanager", tag: v1.2.3, pullPolicy: Always}
imagePullSecrets: [{name: registry}]`, func(t *testing.T, r *rendered) {
		for _, pod := range []*corev1.PodSpec{r.providerPod(), r.rotatorPod()} {
			if c := pod.Containers[0]; c.Image != "registry.example:5000/team/secretmanager:v1.2.3" || c.ImagePullPolicy != corev1.PullAlways {
				t.Errorf("image %s, %s", c.Image, c.ImagePullPolicy)
			}
			if len(pod.ImagePullSecrets) != 1 || pod.ImagePullSecrets[0].Name != "registry" {
				t.Errorf("pull secrets %v", pod.ImagePullSecrets)
			}
		}
	}},
	{"image by digest", `image: {tag: v1.2.3, digest: "sha256:` + strings.Repeat("0a", 32) + `"}`, func(t *testing.T, r *rendered) {
		for _, pod := range []*corev1.PodSpec{r.providerPod(), r.rotatorPod()} {
			if got, want := pod.Containers[0].Image, "secretmanager@sha256:"+strings.Repeat("0a", 32); got != want {
				t.Errorf("image %s, want %s", got, want)
			}
		}
	}},
	{"Vault", `vault: {address: "https://vault.example:8200", namespace: team/a, authMount: k8s/prod, audience: "https://vault.example", tlsServerName: vault}
provider: {allowedAddresses: ["https://a.example:8200", "https://b.example:8200"]}`, func(t *testing.T, r *rendered) {
		if got := object[*corev1.ConfigMap](t, r, "ConfigMap secretmanager-vault").Data["VAULT_ADDR"]; got != "https://vault.example:8200" {
			t.Errorf("VAULT_ADDR=%s", got)
		}
		for _, pod := range []*corev1.PodSpec{r.providerPod(), r.rotatorPod()} {
			hasArgs(t, pod, "--vault-namespace=team/a", "--vault-auth-mount=k8s/prod", "--vault-tls-server-name=vault")
			if from := pod.Containers[0].EnvFrom; len(from) != 1 || from[0].ConfigMapRef.Name != "secretmanager-vault" {
				t.Errorf("its environment is from %+v", from)
			}
		}
		hasArgs(t, r.providerPod(), "--audience=https://vault.example", "--vault-allowed-addresses=https://a.example:8200,https://b.example:8200")
		if got := mounted(t, r.rotatorPod(), "/var/run/secrets/vault").Projected.Sources[0].ServiceAccountToken.Audience; got != "https://vault.example" {
			t.Errorf("the rotator's token is for %q", got)
		}
	}},
	{"plain HTTP", `vault: {address: "http://vault:8200", insecureHTTP: true}
provider: {allowedAddresses: ["http://a:8200"]}`, func(t *testing.T, r *rendered) {
		for _, pod := range []*corev1.PodSpec{r.providerPod(), r.rotatorPod()} {
			hasArgs(t, pod, "--vault-insecure-http")
		}
	}},
	{"plain HTTP on the loopback interface", `vault: {address: "http://127.0.0.1:8200/tools"}
provider: {allowedAddresses: ["http://localhost", "http://[::1]:8200"]}`, func(t *testing.T, r *rendered) {
		for _, pod := range []*corev1.PodSpec{r.providerPod(), r.rotatorPod()} {
			lacksArgs(t, pod, "--vault-insecure-http")
		}
	}},
	{"auth mounts and Vault namespaces", `provider: {allowedAuthMounts: [jwt, k8s/prod], allowedNamespaces: [team/a, team/b]}`, func(t *testing.T, r *rendered) {
		hasArgs(t, r.providerPod(), "--vault-allowed-auth-mounts=jwt,k8s/prod", "--vault-allowed-namespaces=team/a,team/b")
	}},
	{"audit records in a file", `provider: {auditLog: /var/log/secretmanager/audit.log}`, func(t *testing.T, r *rendered) {
		hasArgs(t, r.providerPod(), "--audit-log=/var/log/secretmanager/audit.log")
	}},
	{"the API server's audience", `vault: {audience: ""}`, func(t *testing.T, r *rendered) {
		hasArgs(t, r.providerPod(), "--audience=")
	}},
	{"CA in a ConfigMap, client certificate", `vault: {ca: {configMap: vault-ca}, clientCertificate: {secret: vault-client}}`, func(t *testing.T, r *rendered) {
		for _, pod := range []*corev1.PodSpec{r.providerPod(), r.rotatorPod()} {
			hasArgs(t, pod, "--vault-ca-cert=/etc/secretmanager/vault-ca/ca.crt",
				"--vault-client-cert=/etc/secretmanager/vault-client/tls.crt", "--vault-client-key=/etc/secretmanager/vault-client/tls.key")
			if got := mounted(t, pod, "/etc/secretmanager/vault-ca"); got.ConfigMap == nil || got.ConfigMap.Name != "vault-ca" {
				t.Errorf("the CA is from %+v", got)
			}
			if got := mounted(t, pod, "/etc/secretmanager/vault-client"); got.Secret == nil || got.Secret.SecretName != "vault-client" {
				t.Errorf("the client certificate is from %+v", got)
			}
		}
	}},
	{"CA in a Secret, names of entries", `vault: {ca: {secret: vault-ca, key: root.pem}, clientCertificate: {secret: vault-client, certificateKey: c.pem, privateKeyKey: k.pem}}`, func(t *testing.T, r *rendered) {
		for _, pod := range []*corev1.PodSpec{r.providerPod(), r.rotatorPod()} {
			hasArgs(t, pod, "--vault-ca-cert=/etc/secretmanager/vault-ca/root.pem",
				"--vault-client-cert=/etc/secretmanager/vault-client/c.pem", "--vault-client-key=/etc/secretmanager/vault-client/k.pem")
			if got := mounted(t, pod, "/etc/secretmanager/vault-ca"); got.Secret == nil || got.Secret.SecretName != "vault-ca" {
				t.Errorf("the CA is from %+v", got)
			}
		}
	}},
	{"a ConfigMap of one's own", `vault: {existingConfigMap: ours}`, func(t *testing.T, r *rendered) {
		if r.objects["ConfigMap secretmanager-vault"] != nil {
			t.Error("there is one of the chart's too")
		}
		for _, pod := range []*corev1.PodSpec{r.providerPod(), r.rotatorPod()} {
			if got := pod.Containers[0].EnvFrom[0].ConfigMapRef.Name; got != "ours" {
				t.Errorf("its environment is from %s", got)
			}
		}
	}},
	{"provider", `driver: {providersDir: /var/run/secrets-store-csi-providers}
provider:
  mountTimeoutSeconds: 60
  republishCache: 32Mi
  logLevel: debug
  priorityClassName: high
  tolerations: [{key: dedicated, operator: Equal, value: db, effect: NoSchedule}]
  nodeSelector: {pool: general}
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: gpu, operator: DoesNotExist}]}]}}}
  resources: {limits: {cpu: "1", memory: 1Gi}, requests: {cpu: 100m, memory: 64Mi}}
  podLabels: {team: platform}
  podAnnotations: {note: "yes"}
  extraArgs: ["--pprof-addr=127.0.0.1:6060"]
  extraEnv: [{name: GODEBUG, value: "http2client=0"}, {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]`, func(t *testing.T, r *rendered) {
		pod := r.providerPod()
		c := pod.Containers[0]
		hasArgs(t, pod, "--mount-timeout=60s", "--republish-cache-bytes=32Mi", "--log-level=debug",
			"--endpoint=/var/run/secrets-store-csi-providers/secretmanager.sock")
		if got := c.Args[len(c.Args)-1]; got != "--pprof-addr=127.0.0.1:6060" {
			t.Errorf("the last flag is %s: further ones do not win", got)
		}
		if got := mounted(t, pod, "/var/run/secrets-store-csi-providers").HostPath.Path; got != "/var/run/secrets-store-csi-providers" {
			t.Errorf("sockets are in %s", got)
		}
		if grace := *c.LivenessProbe.TerminationGracePeriodSeconds; grace != 65 {
			t.Errorf("a mount takes up to 60s, and after a failed probe it has %ds", grace)
		}
		if pod.PriorityClassName != "high" || len(pod.Tolerations) != 1 || pod.Tolerations[0].Key != "dedicated" ||
			pod.NodeSelector["pool"] != "general" || pod.NodeSelector["kubernetes.io/os"] != "linux" || pod.Affinity.NodeAffinity == nil {
			t.Errorf("it is placed by %s, %v, %v, %v", pod.PriorityClassName, pod.Tolerations, pod.NodeSelector, pod.Affinity)
		}
		if c.Resources.Limits.Memory().String() != "1Gi" || c.Resources.Requests.Cpu().String() != "100m" || env(pod, "GOMEMLIMIT") != "864MiB" {
			t.Errorf("resources %v, GOMEMLIMIT %s", c.Resources, env(pod, "GOMEMLIMIT"))
		}
		if env(pod, "GODEBUG") != "http2client=0" || len(c.Env) != 4 {
			t.Errorf("environment %v", c.Env)
		}
		template := r.provider.Spec.Template
		if template.Labels["team"] != "platform" || template.Annotations["note"] != "yes" || template.Annotations["checksum/vault"] == "" {
			t.Errorf("labels %v, annotations %v", template.Labels, template.Annotations)
		}
	}},
	{"no limits, no cache", `provider: {resources: null, republishCache: 0, priorityClassName: "", tolerations: []}`, func(t *testing.T, r *rendered) {
		pod := r.providerPod()
		hasArgs(t, pod, "--republish-cache-bytes=0")
		if len(pod.Containers[0].Resources.Limits) > 0 || env(pod, "GOMEMLIMIT") != "" || pod.PriorityClassName != "" || len(pod.Tolerations) > 0 {
			t.Errorf("%+v", pod)
		}
	}},
	{"rotator in namespaces", `rotator: {namespaces: [demo, shop], schedule: "30 1 * * 0", timeZone: Europe/Berlin, vaultRole: rotator-prod, transitKeys: [a, b], maxKeyAge: 167h, activeDeadlineSeconds: 600, logLevel: warn}`, func(t *testing.T, r *rendered) {
		pod := r.rotatorPod()
		hasArgs(t, pod, "--namespace=demo", "--namespace=shop", "--vault-role=rotator-prod", "--transit-key=a", "--transit-key=b", "--max-key-age=167h", "--log-level=warn")
		for _, namespace := range []string{"demo", "shop"} {
			b := object[*rbacv1.RoleBinding](t, r, "RoleBinding secretmanager-rotator-secrets in "+namespace)
			if b.RoleRef.Name != "secretmanager-rotator" || b.RoleRef.Kind != "ClusterRole" || b.Subjects[0].Namespace != manifestNamespace || b.Subjects[0].Name != "secretmanager-rotator" {
				t.Errorf("%+v", b)
			}
		}
		if r.objects["ClusterRoleBinding secretmanager-rotator-secrets"] != nil {
			t.Error("it is bound in the whole cluster")
		}
		if s := r.rotator.Spec; s.Suspend != nil || s.Schedule != "30 1 * * 0" || s.TimeZone == nil || *s.TimeZone != "Europe/Berlin" || *s.JobTemplate.Spec.ActiveDeadlineSeconds != 600 {
			t.Errorf("%+v", s)
		}
	}},
	{"rotator in the cluster", `rotator: {cluster: true, suspend: true, retire: {enabled: true, trim: true, after: 336h}}`, func(t *testing.T, r *rendered) {
		hasArgs(t, r.rotatorPod(), "--retire", "--trim", "--retire-after=336h")
		lacksArgs(t, r.rotatorPod(), "--namespace")
		b := object[*rbacv1.ClusterRoleBinding](t, r, "ClusterRoleBinding secretmanager-rotator-secrets")
		if b.RoleRef.Name != "secretmanager-rotator" || b.Subjects[0].Namespace != manifestNamespace {
			t.Errorf("%+v", b)
		}
		if s := r.rotator.Spec.Suspend; s == nil || !*s {
			t.Error("it is not suspended")
		}
	}},
	{"rotator's pods", `rotator:
  cluster: true
  priorityClassName: low
  tolerations: [{operator: Exists}]
  nodeSelector: {pool: batch}
  affinity: {podAntiAffinity: {}}
  resources: {limits: {memory: 512Mi}}
  podLabels: {team: platform}
  podAnnotations: {note: "yes"}
  extraArgs: ["--include-managed"]
  extraEnv: [{name: HTTPS_PROXY, value: "http://proxy:3128"}]`, func(t *testing.T, r *rendered) {
		pod := r.rotatorPod()
		hasArgs(t, pod, "--include-managed")
		if pod.PriorityClassName != "low" || len(pod.Tolerations) != 1 || pod.NodeSelector["pool"] != "batch" || pod.Affinity == nil || pod.Affinity.PodAntiAffinity == nil ||
			pod.Containers[0].Resources.Limits.Memory().String() != "512Mi" || env(pod, "HTTPS_PROXY") != "http://proxy:3128" {
			t.Errorf("%+v", pod)
		}
		template := r.rotator.Spec.JobTemplate.Spec.Template
		if template.Labels["team"] != "platform" || template.Annotations["note"] != "yes" {
			t.Errorf("labels %v, annotations %v", template.Labels, template.Annotations)
		}
	}},
	{"no provider", `provider: {enabled: false}
rotator: {namespaces: [demo]}
monitoring: {podMonitor: {enabled: true}, prometheusRule: {enabled: true}}`, func(t *testing.T, r *rendered) {
		for name := range r.objects {
			if strings.Contains(name, "-provider") {
				t.Errorf("there is %s", name)
			}
		}
		hasArgs(t, r.rotatorPod(), "--namespace=demo")
	}},
	{"no rotator", `rotator: {enabled: false, cluster: true}`, func(t *testing.T, r *rendered) {
		for name := range r.objects {
			if strings.Contains(name, "rotat") {
				t.Errorf("there is %s", name)
			}
		}
	}},
	{"PodMonitor", `monitoring: {podMonitor: {enabled: true, interval: 15s, labels: {release: prometheus}}}`, func(t *testing.T, r *rendered) {
		m := object[*monitor](t, r, "PodMonitor secretmanager-provider")
		checkMonitor(t, r, m, m.Spec.PodMetricsEndpoints, r.provider.Spec.Template.Labels)
	}},
	{"ServiceMonitor", `monitoring: {serviceMonitor: {enabled: true, interval: 15s, labels: {release: prometheus}}}`, func(t *testing.T, r *rendered) {
		m := object[*monitor](t, r, "ServiceMonitor secretmanager-provider")
		s := object[*corev1.Service](t, r, "Service secretmanager-provider")
		checkMonitor(t, r, m, m.Spec.Endpoints, s.Labels)
		if s.Spec.ClusterIP != corev1.ClusterIPNone || s.Spec.Ports[0].Name != "metrics" || s.Spec.Ports[0].TargetPort.StrVal != "metrics" {
			t.Errorf("%+v", s.Spec)
		}
		checkSelects(t, &metav1.LabelSelector{MatchLabels: s.Spec.Selector}, r.provider.Spec.Template.Labels)
	}},
	{"exporter", `exporter:
  logLevel: debug
  priorityClassName: low
  tolerations: [{operator: Exists}]
  nodeSelector: {pool: general}
  affinity: {podAntiAffinity: {}}
  resources: {limits: {memory: 128Mi}}
  podLabels: {team: platform}
  podAnnotations: {note: "yes"}
monitoring: {podMonitor: {enabled: true}}`, func(t *testing.T, r *rendered) {
		template := object[*appsv1.Deployment](t, r, "Deployment secretmanager-exporter").Spec.Template
		pod := &template.Spec
		hasArgs(t, pod, "export", "--log-level=debug")
		if pod.PriorityClassName != "low" || len(pod.Tolerations) != 1 || pod.NodeSelector["pool"] != "general" || pod.Affinity == nil ||
			pod.Containers[0].Resources.Limits.Memory().String() != "128Mi" || template.Labels["team"] != "platform" || template.Annotations["note"] != "yes" {
			t.Errorf("%+v", template)
		}
		m := object[*monitor](t, r, "PodMonitor secretmanager-exporter")
		checkSelects(t, &m.Spec.Selector, template.Labels)
	}},
	{"no exporter", `exporter: {enabled: false}
monitoring: {podMonitor: {enabled: true}}`, func(t *testing.T, r *rendered) {
		for name := range r.objects {
			if strings.Contains(name, "exporter") {
				t.Errorf("there is %s", name)
			}
		}
	}},
	{"alerts and dashboard", `monitoring:
  prometheusRule: {enabled: true, labels: {release: prometheus}}
  dashboard: {enabled: true, namespace: grafana, labels: {grafana_dashboard: "true"}, annotations: {folder: Security}}`, func(t *testing.T, r *rendered) {
		rule := object[*unstructured.Unstructured](t, r, "PrometheusRule secretmanager")
		groups, _, _ := unstructured.NestedSlice(rule.Object, "spec", "groups")
		if len(groups) < 2 || rule.GetLabels()["release"] != "prometheus" {
			t.Errorf("%d groups, labels %v", len(groups), rule.GetLabels())
		}
		board := object[*corev1.ConfigMap](t, r, "ConfigMap secretmanager-dashboard in grafana")
		if !json.Valid([]byte(board.Data["secretmanager.json"])) || board.Labels["grafana_dashboard"] != "true" || board.Annotations["folder"] != "Security" {
			t.Errorf("labels %v, annotations %v, %.40s", board.Labels, board.Annotations, board.Data["secretmanager.json"])
		}
	}},
	{"admission", `admission:
  enabled: true
  failurePolicy: Ignore
  validationActions: [Warn, Audit]
  forbidPlaintext: {enabled: true, namespaceSelector: {matchLabels: {team: a}}, exceptTypes: [kubernetes.io/tls], exceptUsers: ["system:serviceaccount:kube-system:driver"]}`, func(t *testing.T, r *rendered) {
		for _, name := range []string{"ciphertext", "forbid-plaintext"} {
			policy := object[*admissionv1.ValidatingAdmissionPolicy](t, r, "ValidatingAdmissionPolicy "+name+".secretmanager.io")
			binding := object[*admissionv1.ValidatingAdmissionPolicyBinding](t, r, "ValidatingAdmissionPolicyBinding "+name+".secretmanager.io")
			if *policy.Spec.FailurePolicy != admissionv1.Ignore || !slices.Equal(binding.Spec.ValidationActions, []admissionv1.ValidationAction{admissionv1.Warn, admissionv1.Audit}) {
				t.Errorf("%s: %v, %v", name, *policy.Spec.FailurePolicy, binding.Spec.ValidationActions)
			}
			if name == "ciphertext" {
				continue
			}
			types, users := policy.Spec.MatchConditions[0].Expression, policy.Spec.MatchConditions[1].Expression
			if !strings.Contains(types, `["kubernetes.io/tls"]`) || !strings.Contains(users, `["system:serviceaccount:kube-system:driver"]`) ||
				binding.Spec.MatchResources.NamespaceSelector.MatchLabels["team"] != "a" {
				t.Errorf("%s, %s, %+v", types, users, binding.Spec.MatchResources.NamespaceSelector)
			}
		}
	}},
	// What they select: TestNetworkPolicies.
	{"who may scrape", `networkPolicy: {metricsFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]}`, func(t *testing.T, r *rendered) {
		for _, part := range []string{"provider", "exporter"} {
			p := object[*networkingv1.NetworkPolicy](t, r, "NetworkPolicy secretmanager-"+part)
			if in := p.Spec.Ingress; len(in) != 1 || len(in[0].From) != 1 || in[0].From[0].NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] != "monitoring" {
				t.Errorf("into the %s: %+v", part, in)
			}
		}
	}},
	{"to which ports they connect", `networkPolicy: {egress: {enabled: true, ports: [{port: 53, protocol: UDP}, {port: 8200}]}}`, func(t *testing.T, r *rendered) {
		for _, part := range []string{"provider", "rotator", "exporter"} {
			p := object[*networkingv1.NetworkPolicy](t, r, "NetworkPolicy secretmanager-"+part)
			if !slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) || len(p.Spec.Egress) != 1 || len(p.Spec.Egress[0].To) > 0 || len(p.Spec.Egress[0].Ports) != 2 ||
				p.Spec.Egress[0].Ports[1].Port.IntVal != 8200 {
				t.Errorf("out of the %s: %+v", part, p.Spec)
			}
		}
	}},
	{"no network policies", `networkPolicy: {enabled: false, egress: {enabled: true}}`, func(t *testing.T, r *rendered) {
		for name := range r.objects {
			if strings.HasPrefix(name, "NetworkPolicy") {
				t.Errorf("there is %s", name)
			}
		}
	}},
	{"labels", `commonLabels: {example.com/team: "1", owner: ops}
rotator: {cluster: true}
networkPolicy: {enabled: true}
monitoring: {serviceMonitor: {enabled: true}}`, func(t *testing.T, r *rendered) {
		for name, o := range r.objects {
			if l := o.GetLabels(); l["example.com/team"] != "1" || l["owner"] != "ops" || l["app.kubernetes.io/part-of"] != "secretmanager" {
				t.Errorf("%s has the labels %v", name, l)
			}
		}
		if l := r.rotator.Spec.JobTemplate.Spec.Template.Labels; l["owner"] != "ops" {
			t.Errorf("the rotator's pods have the labels %v", l)
		}
		// A label more must not be a change of what is selected: that cannot be changed.
		if s := r.provider.Spec.Selector.MatchLabels; len(s) != 1 {
			t.Errorf("the provider's pods are selected by %v", s)
		}
	}},
}

func TestOptions(t *testing.T) {
	for _, test := range options {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := render(t, newHelm(t), manifestNamespace, test.values)
			test.check(t, r)
			checkWhole(t, r, manifestNamespace)
		})
	}
}

// TestOptionsTogether renders pairs of options: what one adds must not break what
// another does.
func TestOptionsTogether(t *testing.T) {
	rendered := 0
	for i, first := range options {
		second := options[(i*7+3)%len(options)]
		merged := map[string]any{}
		for _, text := range []string{first.values, second.values} {
			var values map[string]any
			if err := yaml.Unmarshal([]byte(text), &values); err != nil {
				t.Fatal(err)
			}
			overlay(merged, values)
		}
		text, err := yaml.Marshal(merged)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(first.name+", "+second.name, func(t *testing.T) {
			documents, err := newHelm(t).Template(t.Context(), manifestNamespace, string(text))
			if err != nil {
				// Some are alternatives; that and nothing else is what may be wrong.
				if !strings.Contains(err.Error(), "Choose one of them") && !strings.Contains(err.Error(), "Set one of them") &&
					!strings.Contains(err.Error(), "monitoring.prometheusRule.enabled needs") && !strings.Contains(err.Error(), "Remove the other") {
					t.Error(err)
				}
				return
			}
			rendered++
			checkWhole(t, decode(t, documents), manifestNamespace)
		})
	}
	if rendered < len(options)/2 {
		t.Errorf("only %d of %d pairs go together", rendered, len(options))
	}
}

// overlay puts values into others, as Helm does with several files.
func overlay(onto, values map[string]any) {
	for name, value := range values {
		inner, isMap := value.(map[string]any)
		if existing, both := onto[name].(map[string]any); isMap && both {
			overlay(existing, inner)
			continue
		}
		onto[name] = value
	}
}

// TestSecondInstallation renders the chart for a second one in the same cluster: no
// object, socket or folder is that of the first.
func TestSecondInstallation(t *testing.T) {
	const everything = `
networkPolicy: {enabled: true}
monitoring: {serviceMonitor: {enabled: true}}
rotator: `
	helm := newHelm(t)
	first := render(t, helm, manifestNamespace, everything+"{cluster: true}\n")
	checkWhole(t, render(t, helm, "elsewhere", everything+"{namespaces: [demo]}\nname: other\n"), "elsewhere")
	second := render(t, helm, "elsewhere", everything+"{cluster: true}\nname: other\n")
	checkWhole(t, second, "elsewhere")
	for _, name := range second.names() {
		// What the rotator keeps is in the release's namespace, and has no other name.
		if first.objects[name] != nil && !strings.HasSuffix(name, " secretmanager-rotation") {
			t.Errorf("both have %s", name)
		}
	}
	hasArgs(t, second.rotatorPod(), "--state-namespace=elsewhere")
	hasArgs(t, second.providerPod(), "--endpoint=/etc/kubernetes/secrets-store-csi-providers/other.sock")
	if got := mounted(t, second.providerPod(), "/var/lib/secretmanager").HostPath.Path; got != "/var/lib/other" {
		t.Errorf("its key of versions is in %s", got)
	}
}
