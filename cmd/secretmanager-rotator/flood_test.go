package main

import (
	"net"
	"os"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/test/flood"
)

// TestExportFlood floods the exporter's port, which also serves its probes. The probes
// succeed, and memory does not grow. The API server accepts connections and does not
// respond, so that each scrape takes as long as possible.
func TestExportFlood(t *testing.T) {
	text, err := os.ReadFile("../../manifests/exporter/deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var deployment appsv1.Deployment
	if err := yaml.UnmarshalStrict(text, &deployment); err != nil {
		t.Fatal(err)
	}
	liveness := deployment.Spec.Template.Spec.Containers[0].LivenessProbe
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()

	p := flood.Start(t, ".", []string{"GOMEMLIMIT=100MiB"}, exportVerb, "--metrics-addr=127.0.0.1:0", "--log-format=json",
		"--kubeconfig="+writeKubeconfig(t, &rest.Config{Host: "http://" + silent.Addr().String()}))
	address := p.Address(t, "metrics")
	probe := flood.Probe{URL: "http://" + address + liveness.HTTPGet.Path,
		Timeout: time.Duration(liveness.TimeoutSeconds) * time.Second}
	for _, path := range []string{"/metrics", "/healthz"} {
		t.Run(path, func(t *testing.T) {
			p.Survives(t, flood.Target{Address: address, Path: path, Sources: 250}, probe)
		})
	}
}
