package main

import (
	"bytes"
	"os"
	"path"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestManifest verifies that the program accepts the flags of the CronJob, and that the pod
// has no more permissions on its node than it needs.
func TestManifest(t *testing.T) {
	text, err := os.ReadFile("../../manifests/rotator/cronjob.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cron batchv1.CronJob
	if err := yaml.UnmarshalStrict(text, &cron); err != nil {
		t.Fatal(err)
	}
	job := cron.Spec.JobTemplate.Spec
	pod := job.Template.Spec
	container := pod.Containers[0]

	if cron.Spec.Schedule != "0 3 * * *" || cron.Spec.ConcurrencyPolicy != batchv1.ForbidConcurrent {
		t.Errorf("schedule %q, %s", cron.Spec.Schedule, cron.Spec.ConcurrencyPolicy)
	}
	// An overlay adds the keys. Until then every run would fail.
	if cron.Spec.Suspend == nil || !*cron.Spec.Suspend {
		t.Error("it is not suspended, and has no key")
	}
	o, err := parse(append(container.Args, "--transit-key=app"), func(name string) string {
		return map[string]string{"VAULT_ADDR": "https://v:8200"}[name]
	}, &bytes.Buffer{})
	if err != nil {
		t.Fatalf("flags: %v", err)
	}
	// When the next run begins, the version that the last run created is slightly younger
	// than a day.
	if o.MaxKeyAge >= 24*time.Hour || o.MaxKeyAge <= 12*time.Hour {
		t.Errorf("a key is due after %s, with a run every 24h", o.MaxKeyAge)
	}
	if o.Retire {
		t.Error("it retires by default")
	}
	// The job and its repetitions end before the next run is due, which Forbid would skip.
	if job.BackoffLimit == nil || *job.BackoffLimit == 0 {
		t.Error("a failed run is not repeated")
	}
	if d := job.ActiveDeadlineSeconds; d == nil || time.Duration(*d)*time.Second >= 24*time.Hour {
		t.Errorf("active deadline %v", d)
	}
	if got := string(pod.RestartPolicy); got != "Never" {
		t.Errorf("restart policy %s: the logs of a failed container would be lost", got)
	}

	// The token has the path of the flag, and the audience of vault-setup.
	found := false
	for _, volume := range pod.Volumes {
		for _, mount := range container.VolumeMounts {
			if mount.Name != volume.Name || volume.Projected == nil {
				continue
			}
			for _, source := range volume.Projected.Sources {
				token := source.ServiceAccountToken
				if token == nil || path.Join(mount.MountPath, token.Path) != o.tokenFile {
					continue
				}
				found = true
				if token.Audience != "vault" {
					t.Errorf("the token is for %q", token.Audience)
				}
			}
		}
	}
	if !found {
		t.Errorf("no volume has the token at %s", o.tokenFile)
	}

	checkHardened(t, pod, container)
	// Otherwise only root could read the token.
	security := pod.SecurityContext
	if security.FSGroup == nil || security.RunAsGroup == nil || *security.FSGroup != *security.RunAsGroup {
		t.Error("fsGroup differs from runAsGroup")
	}
}

// checkHardened checks that a pod has no more permissions on its node than it needs.
func checkHardened(t *testing.T, pod corev1.PodSpec, container corev1.Container) {
	t.Helper()
	security, restricted := pod.SecurityContext, container.SecurityContext
	if security == nil || security.RunAsNonRoot == nil || !*security.RunAsNonRoot || security.RunAsUser == nil ||
		*security.RunAsUser == 0 ||
		security.SeccompProfile == nil || security.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("the pod's security context is %+v", security)
	}
	if restricted == nil || restricted.ReadOnlyRootFilesystem == nil || !*restricted.ReadOnlyRootFilesystem ||
		restricted.AllowPrivilegeEscalation == nil || *restricted.AllowPrivilegeEscalation ||
		restricted.Capabilities == nil || len(restricted.Capabilities.Drop) != 1 ||
		restricted.Capabilities.Drop[0] != "ALL" ||
		len(restricted.Capabilities.Add) > 0 {
		t.Errorf("the container's security context is %+v", restricted)
	}
}
