package chart

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// componentOptions are values that all components have, or several of them.
func componentOptions(component string) []option {
	options := []option{
		{component + ": pods", fmt.Sprintf(`
%s:
  priorityClassName: high
  tolerations: [{key: dedicated, operator: Equal, value: db, effect: NoSchedule}]
  nodeSelector: {pool: general}
  affinity: {podAntiAffinity: {}}
  resources: {limits: {cpu: "1", memory: 1Gi}, requests: {cpu: 100m, memory: 64Mi}}
  podLabels: {team: platform}
  podAnnotations: {note: "yes"}
  logLevel: debug`, component), func(t *testing.T, r *rendered) {
			template := r.pods()[component]
			pod := template.Spec
			hasArgs(t, &pod, "--log-level=debug")
			if pod.PriorityClassName != "high" || len(pod.Tolerations) != 1 || pod.Tolerations[0].Key != "dedicated" {
				t.Errorf("priority class %q, tolerations %v", pod.PriorityClassName, pod.Tolerations)
			}
			if pod.NodeSelector["pool"] != "general" || pod.NodeSelector["kubernetes.io/os"] != "linux" ||
				pod.Affinity == nil || pod.Affinity.PodAntiAffinity == nil {
				t.Errorf("node selector %v, affinity %v", pod.NodeSelector, pod.Affinity)
			}
			resources := pod.Containers[0].Resources
			if resources.Limits.Memory().String() != "1Gi" || resources.Requests.Cpu().String() != "100m" {
				t.Errorf("resources %v", resources)
			}
			if template.Labels["team"] != "platform" || template.Annotations["note"] != "yes" {
				t.Errorf("labels %v, annotations %v", template.Labels, template.Annotations)
			}
		}},
		{component + ": service account", accountValues(component, "cluster: true",
			"create: true, name: ours, annotations: {example.com/role: reader}"), func(t *testing.T, r *rendered) {
			account := object[*corev1.ServiceAccount](t, r, "ServiceAccount ours")
			if account.Annotations["example.com/role"] != "reader" {
				t.Errorf("annotations %v", account.Annotations)
			}
			checkAccount(t, r, component)
		}},
		{component + ": existing service account", accountValues(component, "namespaces: [demo]",
			"create: false, name: ours"), func(t *testing.T, r *rendered) {
			for name := range r.objects {
				if name == "ServiceAccount ours" || name == "ServiceAccount secretmanager-"+component {
					t.Errorf("the release has %s", name)
				}
			}
			checkAccount(t, r, component)
		}},
		{component + ": security contexts", fmt.Sprintf(`
%s:
  podSecurityContext: {supplementalGroups: [7], seLinuxOptions: {level: "s0:c1"}}
  securityContext: {seLinuxOptions: {type: spc_t}, runAsGroup: 5, capabilities: {add: [SYS_TIME]}}`, component),
			func(t *testing.T, r *rendered) {
				defaults := render(t, newHelm(t), manifestNamespace, "").pod(component)
				pod := r.pod(component)
				got, want := pod.SecurityContext, &corev1.PodSecurityContext{}
				if defaults.SecurityContext != nil {
					want = defaults.SecurityContext.DeepCopy()
				}
				want.SupplementalGroups = []int64{7}
				want.SELinuxOptions = &corev1.SELinuxOptions{Level: "s0:c1"}
				checkEqual(t, "pod security context", want, got)

				group := int64(5)
				container := defaults.Containers[0].SecurityContext.DeepCopy()
				container.SELinuxOptions = &corev1.SELinuxOptions{Type: "spc_t"}
				container.RunAsGroup = &group
				container.Capabilities.Add = []corev1.Capability{"SYS_TIME"}
				if !slices.Equal(container.Capabilities.Drop, []corev1.Capability{"ALL"}) {
					t.Errorf("by default the container drops %v", container.Capabilities.Drop)
				}
				checkEqual(t, "security context", container, pod.Containers[0].SecurityContext)
			}},
		{component + ": a default taken away", component + `: {securityContext: {readOnlyRootFilesystem: null}}`,
			func(t *testing.T, r *rendered) {
				if c := r.pod(component).Containers[0].SecurityContext; c.ReadOnlyRootFilesystem != nil {
					t.Errorf("security context %+v", c)
				}
			}},
	}
	if component != "rotator" {
		options = append(options, probeOption(component))
	}
	if component != "exporter" {
		options = append(options, extraOption(component), networkOption(component))
	}
	return options
}

// accountValues sets the service account of a component, and the scope of the rotator.
func accountValues(component, scope, account string) string {
	if component == "rotator" {
		return fmt.Sprintf("rotator: {%s, serviceAccount: {%s}}", scope, account)
	}
	return fmt.Sprintf("rotator: {%s}\n%s: {serviceAccount: {%s}}", scope, component, account)
}

// checkAccount checks that the pods of a component use the service account ours, and that exactly the bindings of the
// component have it.
func checkAccount(t *testing.T, r *rendered, component string) {
	t.Helper()
	for name, template := range r.pods() {
		if got := template.Spec.ServiceAccountName; (got == "ours") != (name == component) {
			t.Errorf("the service account of the %s is %s", name, got)
		}
	}
	bound := 0
	for name, o := range r.objects {
		var subjects []rbacv1.Subject
		switch o := o.(type) {
		case *rbacv1.RoleBinding:
			subjects = o.Subjects
		case *rbacv1.ClusterRoleBinding:
			subjects = o.Subjects
		}
		for _, s := range subjects {
			if (s.Name == "ours") != strings.Contains(name, "-"+component) {
				t.Errorf("%s binds %s", name, s.Name)
			}
			bound++
		}
	}
	if bound != 3 { // the role and the scope of the rotator, and the role of the exporter
		t.Errorf("%d subjects, want 3", bound)
	}
}

func probeOption(component string) option {
	return option{component + ": probes", fmt.Sprintf(`
%s:
  readinessProbe: {initialDelaySeconds: 7, failureThreshold: 9}
  livenessProbe: {periodSeconds: 33}`, component), func(t *testing.T, r *rendered) {
		c := r.pod(component).Containers[0]
		if p := c.ReadinessProbe; p.InitialDelaySeconds != 7 || p.FailureThreshold != 9 || p.PeriodSeconds == 0 {
			t.Errorf("readiness probe %+v", p)
		}
		if p := c.LivenessProbe; p.PeriodSeconds != 33 || p.TimeoutSeconds != 5 || p.FailureThreshold != 3 {
			t.Errorf("liveness probe %+v", p)
		}
	}}
}

func extraOption(component string) option {
	return option{component + ": extra flags, environment and volumes", fmt.Sprintf(`
%s:
  extraArgs: ["--pprof-addr=127.0.0.1:6060", "--log-level=warn"]
  extraEnv: [{name: HTTPS_PROXY, value: "http://proxy"}, {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
  extraVolumes: [{name: audit, emptyDir: {sizeLimit: 1Gi}}]
  extraVolumeMounts: [{name: audit, mountPath: /var/log/audit, subPath: a}]`, component),
		func(t *testing.T, r *rendered) {
			pod := r.pod(component)
			c := pod.Containers[0]
			if want := []string{"--pprof-addr=127.0.0.1:6060", "--log-level=warn"}; !slices.Equal(c.Args[len(c.Args)-2:], want) {
				t.Errorf("flags %q, want %q at the end, where they override the others", c.Args, want)
			}
			last := c.Env[len(c.Env)-1]
			if env(pod, "HTTPS_PROXY") != "http://proxy" || last.Name != "IP" || last.ValueFrom.FieldRef == nil {
				t.Errorf("environment %v", c.Env)
			}
			if v := mounted(t, pod, "/var/log/audit"); v.EmptyDir == nil || v.EmptyDir.SizeLimit.String() != "1Gi" {
				t.Errorf("the volume at /var/log/audit is %+v", v)
			}
			if m := c.VolumeMounts[len(c.VolumeMounts)-1]; m.SubPath != "a" {
				t.Errorf("mount %+v", m)
			}
		}}
}

func networkOption(component string) option {
	extra, dns := "", ""
	if component == "provider" {
		extra = ", updateStrategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}, healthPort: 18080, metricsPort: 19090"
	} else {
		dns = "Default"
	}
	return option{component + ": network of the node", fmt.Sprintf(
		`%s: {hostNetwork: true, dnsPolicy: %q%s}`, component, dns, extra), func(t *testing.T, r *rendered) {
		pod := r.pod(component)
		want := corev1.DNSPolicy(dns)
		if dns == "" {
			want = corev1.DNSClusterFirstWithHostNet
		}
		if !pod.HostNetwork || pod.DNSPolicy != want {
			t.Errorf("hostNetwork %v, dnsPolicy %s", pod.HostNetwork, pod.DNSPolicy)
		}
		if component != "provider" {
			return
		}
		hasArgs(t, pod, "--health-addr=:18080", "--metrics-addr=:19090")
		if p := pod.Containers[0].Ports; p[0].ContainerPort != 18080 || p[1].ContainerPort != 19090 {
			t.Errorf("ports %+v", p)
		}
		if u := r.provider.Spec.UpdateStrategy.RollingUpdate; u.MaxSurge.IntVal != 0 || u.MaxUnavailable.IntVal != 1 {
			t.Errorf("update strategy %+v", u)
		}
	}}
}

// providerOptions are values that only the provider has.
var providerOptions = []option{
	{"provider", `
driver: {providersDir: /var/run/providers, check: true, audiences: [vault]}
provider: {enabled: true, name: second, mountTimeoutSeconds: 60, republishCache: 32Mi, auditLog: /var/log/audit.log}`,
		func(t *testing.T, r *rendered) {
			pod := r.providerPod()
			hasArgs(t, pod, "--mount-timeout=60s", "--republish-cache-bytes=32Mi", "--audit-log=/var/log/audit.log",
				"--endpoint=/var/run/providers/second.sock")
			if got := mounted(t, pod, "/var/run/providers").HostPath.Path; got != "/var/run/providers" {
				t.Errorf("the sockets are in %s", got)
			}
			if got := mounted(t, pod, "/var/lib/secretmanager").HostPath.Path; got != "/var/lib/second" {
				t.Errorf("the version key is in %s", got)
			}
			if grace := *pod.Containers[0].LivenessProbe.TerminationGracePeriodSeconds; grace != 65 {
				t.Errorf("a mount takes up to 60 s, but after a failed probe it has %d s", grace)
			}
			if r.provider.Spec.Template.Annotations["checksum/vault"] == "" {
				t.Error("another address of Vault would not restart the pods")
			}
		}},
	{"provider: memory", `provider: {resources: {limits: {memory: 1Gi}}}`, func(t *testing.T, r *rendered) {
		if got := env(r.providerPod(), "GOMEMLIMIT"); got != "864MiB" {
			t.Errorf("GOMEMLIMIT is %s, want 864MiB", got)
		}
	}},
	{"provider: no limits, no cache", `
provider: {resources: null, republishCache: 0, priorityClassName: "", tolerations: []}`,
		func(t *testing.T, r *rendered) {
			pod := r.providerPod()
			hasArgs(t, pod, "--republish-cache-bytes=0")
			if len(pod.Containers[0].Resources.Limits) > 0 || env(pod, "GOMEMLIMIT") != "" ||
				pod.PriorityClassName != "" || len(pod.Tolerations) > 0 {
				t.Errorf("%+v", pod)
			}
		}},
	{"provider: quota", `provider: {resourceQuota: true}`, func(t *testing.T, r *rendered) {
		quota := object[*corev1.ResourceQuota](t, r, "ResourceQuota secretmanager-provider").Spec
		if want := (corev1.ScopedResourceSelectorRequirement{ScopeName: corev1.ResourceQuotaScopePriorityClass,
			Operator: corev1.ScopeSelectorOpIn, Values: []string{r.providerPod().PriorityClassName}}); !cmp.Equal(
			quota.ScopeSelector.MatchExpressions, []corev1.ScopedResourceSelectorRequirement{want}) || len(quota.Hard) != 1 {
			t.Errorf("%+v", quota)
		}
	}},
	{"provider: OpenShift", `
provider:
  securityContextConstraints: true
  hostNetwork: true
  updateStrategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}`,
		checkConstraints},
	{"provider: OpenShift with another SELinux type", `
provider: {securityContextConstraints: true, securityContext: {seLinuxOptions: {type: ours_t, level: s0}}}`,
		func(t *testing.T, r *rendered) {
			checkConstraints(t, r)
			want := &corev1.SELinuxOptions{Type: "ours_t", Level: "s0"}
			checkEqual(t, "SELinux options", want, r.providerPod().Containers[0].SecurityContext.SELinuxOptions)
		}},
	{"provider: update by hand", `provider: {updateStrategy: {type: OnDelete}}`, func(t *testing.T, r *rendered) {
		if u := r.provider.Spec.UpdateStrategy; u.Type != appsv1.OnDeleteDaemonSetStrategyType || u.RollingUpdate != nil {
			t.Errorf("update strategy %+v", u)
		}
	}},
	{"exporter: update", `exporter: {updateStrategy: {type: Recreate}}`, func(t *testing.T, r *rendered) {
		strategy := object[*appsv1.Deployment](t, r, "Deployment secretmanager-exporter").Spec.Strategy
		if strategy.Type != appsv1.RecreateDeploymentStrategyType || strategy.RollingUpdate != nil {
			t.Errorf("update strategy %+v", strategy)
		}
	}},
	{"no provider", `
provider: {enabled: false}
rotator: {namespaces: [demo]}
monitoring: {podMonitor: {enabled: true}, prometheusRule: {enabled: true}}`, func(t *testing.T, r *rendered) {
		checkAbsent(t, r, "-provider")
		hasArgs(t, r.rotatorPod(), "--namespace=demo")
	}},
}

func checkAbsent(t *testing.T, r *rendered, part string) {
	t.Helper()
	for name := range r.objects {
		if strings.Contains(name, part) {
			t.Errorf("the release has %s", name)
		}
	}
}
