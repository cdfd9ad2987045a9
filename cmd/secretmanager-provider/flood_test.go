package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/test/flood"
)

// TestFlood verifies that during a flood of the provider's ports the kubelet's probes succeed,
// with the timeout of the manifest, and the process needs no more memory. The cost for mounts
// is measured by make bench.
func TestFlood(t *testing.T) {
	text, err := os.ReadFile("../../manifests/provider/daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var set appsv1.DaemonSet
	if err := yaml.UnmarshalStrict(text, &set); err != nil {
		t.Fatal(err)
	}
	liveness := set.Spec.Template.Spec.Containers[0].LivenessProbe

	dir := t.TempDir()
	p := flood.Start(t, ".", []string{"GOMEMLIMIT=200MiB"}, "--endpoint="+filepath.Join(dir, "p.sock"),
		"--version-key-file="+filepath.Join(dir, "key"),
		"--vault-addr=http://127.0.0.1:1", "--log-format=json", "--health-addr=127.0.0.1:0",
		"--metrics-addr=127.0.0.1:0", "--pprof-addr=127.0.0.1:0")
	health := p.Address(t, "health probes")
	probe := flood.Probe{URL: "http://" + health + liveness.HTTPGet.Path,
		Timeout: time.Duration(liveness.TimeoutSeconds) * time.Second}
	for name, target := range map[string]flood.Target{
		"health":                  {Address: health, Path: "/healthz", Sources: 250},
		"health from one address": {Address: health, Path: "/healthz", Sources: 1},
		"readiness":               {Address: health, Path: "/readyz", Sources: 5000},
		"metrics":                 {Address: p.Address(t, "metrics"), Path: "/metrics", Sources: 250},
		"profiles":                {Address: p.Address(t, "profiles"), Path: "/debug/pprof/heap", Sources: 250},
	} {
		t.Run(name, func(t *testing.T) { p.Survives(t, target, probe) })
	}
}
