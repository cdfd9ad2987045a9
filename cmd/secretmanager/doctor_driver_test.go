package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/secretmanager-io/secretmanager/internal/doctor"
)

// The printed command adds the token of the provider, and changes nothing else of a CSIDriver that other providers use.
func (c *doctorEnv) testOtherTokens(t *testing.T) {
	client, err := dynamic.NewForConfig(c.server.Config)
	check(t, err)
	drivers := client.Resource(schema.GroupVersionResource{Group: "storage.k8s.io", Version: "v1", Resource: "csidrivers"})
	get := func() map[string]any {
		t.Helper()
		driver, err := drivers.Get(t.Context(), "secrets-store.csi.k8s.io", metav1.GetOptions{})
		check(t, err)
		spec, _, err := unstructured.NestedMap(driver.Object, "spec")
		check(t, err)
		return spec
	}
	// The API server drops serviceAccountTokenInSecrets before Kubernetes 1.35.
	c.sh(t, `kubectl patch csidriver secrets-store.csi.k8s.io --type=merge -p '{"spec":{
		"serviceAccountTokenInSecrets":true,
		"tokenRequests":[{"audience":"sts.example","expirationSeconds":3600},{"audience":"api://azure"}]}}'`)
	before := get()
	fixes := c.doctor(t, nil).check(t, "token-requests").Fixes
	if len(fixes) != 1 {
		t.Fatalf("fixes %q", fixes)
	}
	c.sh(t, fixes[0])
	want := before
	requests, _ := want["tokenRequests"].([]any)
	want["tokenRequests"] = append(requests, map[string]any{"audience": "vault"})
	if diff := cmp.Diff(want, get()); diff != "" {
		t.Errorf("after %s (-want +got):\n%s", fixes[0], diff)
	}
	// It was for another list of tokens: somebody else was faster.
	if out, err := c.command(t.Context(), "", c.env, "sh", "-ec", fixes[0]).CombinedOutput(); err == nil {
		t.Errorf("the command is accepted twice: %s", out)
	}
	c.sh(t, `kubectl apply -f "$ROOT/manifests/driver/csidriver.yaml"`)

	// The same for a driver without tokens that gets some before the command runs.
	patchCSIDriver(`{"tokenRequests":null,"serviceAccountTokenInSecrets":null}`)(t, c)
	fixes = c.doctor(t, nil).check(t, "token-requests").Fixes
	patchCSIDriver(`{"tokenRequests":[{"audience":"api://azure"}]}`)(t, c)
	if out, err := c.command(t.Context(), "", c.env, "sh", "-ec", fixes[0]).CombinedOutput(); err == nil {
		t.Errorf("the command replaces the tokens of another provider: %s", out)
	}
	patchCSIDriver(`{"tokenRequests":[{"audience":"vault"}]}`)(t, c)
}

// refusals are messages of controllers, and what the printed command creates.
var refusals = []struct{ name, message, fix, exists string }{
	{"quota for a priority class", `Error creating: pods "p-" is forbidden: insufficient quota to match these scopes: ` +
		`[{PriorityClass In [system-node-critical system-cluster-critical]}]`, "kubectl create -f -",
		`test "$(kubectl -n secretmanager-system get quota $NAME \
			-o jsonpath='{.spec.scopeSelector.matchExpressions[0].values}')" \
			= '["system-node-critical"]'
		kubectl -n secretmanager-system delete quota $NAME`},
	{"OpenShift", `Error creating: pods "p-" is forbidden: unable to validate against any security context constraint: ` +
		`[provider "anyuid": Forbidden: not usable by user or serviceaccount]`,
		"describe", `true`},
	{"Pod Security", `Error creating: pods "p" is forbidden: violates PodSecurity "baseline:latest": hostPath volumes`,
		"enforce=privileged", `kubectl get namespace -l pod-security.kubernetes.io/enforce=privileged -o name |
		grep namespace/secretmanager-system`},
	{"quota", `Error creating: pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1`,
		"kubectl -n secretmanager-system describe quota", `true`},
	{"webhook", `Error creating: admission webhook "x.example" denied the request: no`, "describe", `true`},
}

// doctor shows why a DaemonSet, a CronJob or a Job has no pods, and a command that changes that.
func (c *doctorEnv) testRefusedPods(t *testing.T) {
	const namespace = "secretmanager-system"
	set, err := c.kube.AppsV1().DaemonSets(namespace).Get(t.Context(), "secretmanager-provider", metav1.GetOptions{})
	check(t, err)
	cron, err := c.kube.BatchV1().CronJobs(namespace).Get(t.Context(), "secretmanager-rotator", metav1.GetOptions{})
	check(t, err)
	c.sh(t, `kubectl -n secretmanager-system delete pod provider-node-1 --force
		kubectl -n secretmanager-system create job --from=cronjob/secretmanager-rotator rotator-1`)
	job, err := c.kube.BatchV1().Jobs(namespace).Get(t.Context(), "rotator-1", metav1.GetOptions{})
	check(t, err)
	for _, owner := range []struct {
		kind, check string
		object      metav1.Object
	}{
		{"DaemonSet", "provider-nodes", set}, {"Job", "rotator", job}, {"CronJob", "rotator", cron},
	} {
		for i, refusal := range refusals {
			if i == 0 && owner.kind != "DaemonSet" {
				continue // only the provider has a priority class
			}
			t.Run(owner.kind+" "+refusal.name, func(t *testing.T) {
				event := c.failedCreate(t, owner.kind, owner.object.GetName(), owner.object.GetUID(), refusal.message)
				v := c.doctor(t, nil, "web-0")
				l := v.check(t, owner.check)
				fixes := strings.Join(append(slices.Clone(l.Fixes), l.Inspect...), "\n")
				who := owner.kind + " " + namespace + "/" + owner.object.GetName()
				if !slices.Equal(v.in(doctor.Broken), slices.Compact([]string{"provider-nodes", owner.check})) ||
					!strings.HasPrefix(l.Detail, who+" cannot create pods: Error creating: ") ||
					!strings.Contains(fixes, refusal.fix) || len(l.Fixes)+len(l.Inspect) != 1 {
					t.Fatalf("%s\n%+v", v, l)
				}
				c.sh(t, fixes+"\nNAME="+owner.object.GetName()+"\n"+refusal.exists)
				check(t, c.kube.CoreV1().Events(namespace).Delete(t.Context(), event, metav1.DeleteOptions{}))
			})
		}
	}
	// Events of deleted objects of the same names.
	old := []string{c.failedCreate(t, "DaemonSet", set.Name, "of-an-older-one", "an old message"),
		c.failedCreate(t, "Job", "rotator-1", "of-an-older-one", "an old message")}
	if v := c.doctor(t, nil); strings.Contains(v.String(), "an old message") {
		t.Errorf("%s", v)
	}
	for _, event := range old {
		check(t, c.kube.CoreV1().Events(namespace).Delete(t.Context(), event, metav1.DeleteOptions{}))
	}
	c.sh(t, `kubectl -n secretmanager-system delete job rotator-1`)
	c.pod(t, namespace, "provider-node-1", providerLabels, "node-1")
}

// failedCreate creates the event of a controller that may not create a pod.
func (c *doctorEnv) failedCreate(t *testing.T, kind, name string, uid types.UID, message string) string {
	t.Helper()
	event, err := c.kube.CoreV1().Events("secretmanager-system").Create(t.Context(), &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: name + "-"},
		InvolvedObject: corev1.ObjectReference{Kind: kind, Namespace: "secretmanager-system", Name: name, UID: uid},
		Reason:         "FailedCreate", Type: corev1.EventTypeWarning, Message: message, LastTimestamp: metav1.Now(),
	}, metav1.CreateOptions{})
	check(t, err)
	return event.Name
}
