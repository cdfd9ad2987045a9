package main

import (
	"bytes"
	"os"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/provider"
)

// TestManifest verifies that the DaemonSet matches the program, so that neither the kubelet
// nor the kernel kills a provider during a mount.
func TestManifest(t *testing.T) {
	text, err := os.ReadFile("../../manifests/provider/daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var set appsv1.DaemonSet
	if err := yaml.UnmarshalStrict(text, &set); err != nil {
		t.Fatal(err)
	}
	pod := set.Spec.Template.Spec
	container := pod.Containers[0]
	if _, err := parse(container.Args, getenv(map[string]string{"VAULT_ADDR": "https://v:8200"}),
		&bytes.Buffer{}); err != nil {
		t.Errorf("parsing the flags: %v", err)
	}
	// The provider waits two seconds longer than the timeout of mounts.
	const margin = 5 * time.Second
	if grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; grace < maxMountTimeout+margin {
		t.Errorf("grace period %s, and a mount may take %s", grace, maxMountTimeout)
	}
	if grace := time.Duration(
		*container.LivenessProbe.TerminationGracePeriodSeconds) * time.Second; grace < provider.DefaultMountTimeout+margin {
		t.Errorf("grace period after a failed probe %s, and a mount takes up to %s", grace, provider.DefaultMountTimeout)
	}
	update := set.Spec.UpdateStrategy.RollingUpdate
	if update.MaxSurge.IntValue() != 1 || update.MaxUnavailable.IntValue() != 0 {
		t.Errorf("the update strategy is %+v: a node temporarily has no provider", update)
	}
	for _, env := range container.Env {
		if env.Name != "GOMEMLIMIT" {
			continue
		}
		// Go writes MiB where Kubernetes writes Mi.
		soft, err := resource.ParseQuantity(env.Value[:len(env.Value)-1])
		if err != nil {
			t.Fatal(err)
		}
		hard := container.Resources.Limits.Memory().Value()
		if soft.Value() < 2*provider.DefaultRepublishCacheBytes || soft.Value() > hard/100*90 {
			t.Errorf("GOMEMLIMIT is %d, want between twice the republish cache and nine tenths of the limit, %d",
				soft.Value(), hard)
		}
		return
	}
	t.Error("no GOMEMLIMIT")
}
