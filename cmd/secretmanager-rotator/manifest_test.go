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

// TestManifest: what the CronJob says fits what the program does, and it has no
// more rights on its node than it needs.
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
	o, err := parse(container.Args, func(name string) string {
		return map[string]string{"VAULT_ADDR": "https://v:8200"}[name]
	}, &bytes.Buffer{})
	if err != nil {
		t.Fatalf("its flags: %v", err)
	}
	// The key that the last run made is a little younger than a day when the next
	// one begins, as that one took a while to make it.
	if o.MaxKeyAge >= 24*time.Hour || o.MaxKeyAge <= 12*time.Hour {
		t.Errorf("a key is due after %s, and is looked at every 24h", o.MaxKeyAge)
	}
	if o.Retire {
		t.Error("it retires, which nobody has asked for")
	}
	// It ends, tried again or not, before the next one is due: Forbid would skip it.
	if job.BackoffLimit == nil || *job.BackoffLimit == 0 {
		t.Error("a run that fails is not tried again")
	}
	if d := job.ActiveDeadlineSeconds; d == nil || time.Duration(*d)*time.Second >= 24*time.Hour {
		t.Errorf("active deadline %v", d)
	}
	if got := string(pod.RestartPolicy); got != "Never" {
		t.Errorf("restart policy %s: the logs of a failed run would go with its container", got)
	}

	// The token: where the program looks for it, for the audience that vault-setup
	// makes roles for.
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

	hardened(t, pod, container)
	// Nobody but root could read the token without it.
	security := pod.SecurityContext
	if security.FSGroup == nil || security.RunAsGroup == nil || *security.FSGroup != *security.RunAsGroup {
		t.Error("fsGroup is not the group that it runs as")
	}
}

// hardened checks that a pod has no more rights on its node than it needs.
func hardened(t *testing.T, pod corev1.PodSpec, container corev1.Container) {
	t.Helper()
	security, all := pod.SecurityContext, container.SecurityContext
	if security == nil || security.RunAsNonRoot == nil || !*security.RunAsNonRoot || security.RunAsUser == nil ||
		*security.RunAsUser == 0 ||
		security.SeccompProfile == nil || security.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("the pod's security context is %+v", security)
	}
	if all == nil || all.ReadOnlyRootFilesystem == nil || !*all.ReadOnlyRootFilesystem ||
		all.AllowPrivilegeEscalation == nil || *all.AllowPrivilegeEscalation ||
		all.Capabilities == nil || len(all.Capabilities.Drop) != 1 || all.Capabilities.Drop[0] != "ALL" ||
		len(all.Capabilities.Add) > 0 {
		t.Errorf("the container's security context is %+v", all)
	}
}
