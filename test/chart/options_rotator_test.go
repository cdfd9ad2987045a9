package chart

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
)

// rotatorOptions are values that only the rotator has.
var rotatorOptions = []option{
	{"rotator in namespaces", `
rotator:
  enabled: true
  namespaces: [demo, shop]
  schedule: "30 1 * * 0"
  timeZone: Europe/Berlin
  vaultRole: rotator-prod
  transitKeys: [a, "team-*=demo,shop", mounts/b]
  maxGap: 200h
  maxKeyAge: 167h
  settle: 30h
  activeDeadlineSeconds: 600`, func(t *testing.T, r *rendered) {
		hasArgs(t, r.rotatorPod(), "--namespace=demo", "--namespace=shop", "--vault-role=rotator-prod",
			"--transit-key=a", "--transit-key=team-*=demo,shop", "--transit-key=mounts/b", "--max-key-age=167h", "--settle=30h",
			"--max-gap=200h")
		for _, namespace := range []string{"demo", "shop"} {
			b := object[*rbacv1.RoleBinding](t, r, "RoleBinding secretmanager-rotator-secrets in "+namespace)
			if b.RoleRef.Name != "secretmanager-rotator" || b.RoleRef.Kind != "ClusterRole" ||
				b.Subjects[0].Namespace != manifestNamespace || b.Subjects[0].Name != "secretmanager-rotator" {
				t.Errorf("%+v", b)
			}
		}
		if r.objects["ClusterRoleBinding secretmanager-rotator-secrets"] != nil {
			t.Error("it has rights in the whole cluster")
		}
		if s := r.rotator.Spec; s.Suspend != nil || s.Schedule != "30 1 * * 0" || s.TimeZone == nil ||
			*s.TimeZone != "Europe/Berlin" || *s.JobTemplate.Spec.ActiveDeadlineSeconds != 600 {
			t.Errorf("%+v", s)
		}
	}},
	{"rotator in the cluster", `
rotator: {cluster: true, transitKeys: [a], suspend: true, retire: {enabled: true, onlyUser: true, after: 336h}}`,
		func(t *testing.T, r *rendered) {
			hasArgs(t, r.rotatorPod(), "--retire", "--only-user", "--retire-after=336h", "--max-gap=48h")
			lacksArgs(t, r.rotatorPod(), "--namespace")
			b := object[*rbacv1.ClusterRoleBinding](t, r, "ClusterRoleBinding secretmanager-rotator-secrets")
			if b.RoleRef.Name != "secretmanager-rotator" || b.Subjects[0].Namespace != manifestNamespace {
				t.Errorf("%+v", b)
			}
			if s := r.rotator.Spec.Suspend; s == nil || !*s {
				t.Error("it is not suspended")
			}
		}},
	{"rotator without keys", `rotator: {cluster: true}`, func(t *testing.T, r *rendered) {
		if s := r.rotator.Spec.Suspend; s == nil || !*s { // every run would fail
			t.Error("it is not suspended")
		}
	}},
	{"rotator without a scope", `rotator: {transitKeys: [a]}`, func(t *testing.T, r *rendered) {
		if s := r.rotator.Spec.Suspend; s == nil || !*s {
			t.Error("it is not suspended")
		}
	}},
	{"retirement in namespaces, daily", `
rotator:
  namespaces: [demo, shop]
  transitKeys: [a=demo, "b-*=demo"]
  retire: {enabled: true, onlyUser: true}`, func(t *testing.T, r *rendered) {
		hasArgs(t, r.rotatorPod(), "--retire", "--only-user")
		if r.rotator.Spec.Suspend != nil {
			t.Error("it is suspended")
		}
	}},
	{"retirement every week", `
rotator:
  cluster: true
  transitKeys: [a]
  schedule: "@weekly"
  maxGap: 200h
  retire: {enabled: true, onlyUser: true}`, func(t *testing.T, r *rendered) {
		hasArgs(t, r.rotatorPod(), "--retire", "--max-gap=200h")
	}},
	{"retirement every hour", `
rotator:
  cluster: true
  transitKeys: [a]
  schedule: "@hourly"
  maxGap: 6h
  retire: {enabled: true, onlyUser: true}`, func(t *testing.T, r *rendered) {
		hasArgs(t, r.rotatorPod(), "--retire", "--max-gap=6h")
	}},
	{"no rotator", `rotator: {enabled: false, cluster: true}`, func(t *testing.T, r *rendered) {
		checkAbsent(t, r, "rotat")
	}},
	{"no admission policy of the rotator", `rotator: {cluster: true, admissionPolicy: {enabled: false}}`,
		func(t *testing.T, r *rendered) {
			checkAbsent(t, r, "Admission")
		}},
	{"no exporter", `
exporter: {enabled: false}
monitoring: {podMonitor: {enabled: true}}`, func(t *testing.T, r *rendered) {
		checkAbsent(t, r, "exporter")
	}},
}
