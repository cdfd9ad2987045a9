package monitoring

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

//go:generate go test -run TestRendered -update .

var update = flag.Bool("update", false, "write manifests/monitoring instead of comparing with it")

// ruleHead is what the chart's template makes of the rest, to the byte.
const ruleHead = `apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: secretmanager
  labels:
    app.kubernetes.io/name: secretmanager
    app.kubernetes.io/part-of: secretmanager
spec:
`

// TestRendered: manifests/monitoring has what the chart has. A kustomization takes no
// file from outside its folder.
func TestRendered(t *testing.T) {
	var rule strings.Builder
	rule.WriteString(ruleHead)
	for line := range strings.Lines(read(t, alertsFile)) {
		if line != "\n" {
			line = "  " + line
		}
		rule.WriteString(line)
	}
	for file, want := range map[string]string{
		"manifests/monitoring/prometheusrule.yaml": rule.String(),
		"manifests/monitoring/dashboard.json":      read(t, dashboardFile),
	} {
		if *update {
			if err := os.WriteFile(in(t, file), []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, read(t, file)); diff != "" {
			t.Errorf("%s is not current: go generate ./test/monitoring (-want +got):\n%s", file, diff)
		}
	}
	// And it still says the same.
	type object struct {
		APIVersion string         `json:"apiVersion"`
		Kind       string         `json:"kind"`
		Metadata   map[string]any `json:"metadata"`
		Spec       rules          `json:"spec"`
	}
	got := decode[object](t, read(t, "manifests/monitoring/prometheusrule.yaml"))
	if diff := cmp.Diff(decode[rules](t, read(t, alertsFile)), got.Spec); diff != "" {
		t.Errorf("-file +rule:\n%s", diff)
	}
}
