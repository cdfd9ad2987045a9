package main

import (
	"bytes"
	"os"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/chart"
)

// chartOptions parses the flags that the Helm chart sets.
func chartOptions(t *testing.T, namespace, values string) *runOptions {
	t.Helper()
	helm, err := chart.NewHelm(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	documents, err := helm.Template(t.Context(), namespace, values)
	if err != nil {
		t.Fatal(err)
	}
	var cron batchv1.CronJob
	if err := yaml.UnmarshalStrict([]byte(documents["rotator/cronjob.yaml"][0]), &cron); err != nil {
		t.Fatal(err)
	}
	o, err := parse(cron.Spec.JobTemplate.Spec.Template.Spec.Containers[0].Args,
		func(name string) string { return map[string]string{"VAULT_ADDR": "https://v:8200"}[name] }, &bytes.Buffer{})
	if err != nil {
		t.Fatalf("flags: %v", err)
	}
	return o
}

// TestChart verifies that the program accepts every flag that the chart sets.
func TestChart(t *testing.T) {
	vault := `
vault:
  insecureHTTP: true
  namespace: team
  authMount: k8s
  tlsServerName: vault
  ca: {secret: ca}
  clientCertificate: {secret: client}
`
	o := chartOptions(t, "elsewhere", vault+`
rotator:
  namespaces: [demo, shop]
  vaultRole: ours
  transitKeys: [a, "b-*=demo,shop"]
  maxGap: 72h
  maxKeyAge: 47h
  logLevel: debug
  extraArgs: [--include-managed]
`)
	if !o.vault.InsecureHTTP || o.vault.Namespace != "team" || o.vault.AuthMount != "k8s" ||
		o.vault.TLSServerName != "vault" || o.vault.CACert == "" || o.vault.ClientCert == "" || o.vault.ClientKey == "" ||
		!slices.Equal(o.Namespaces, []string{"demo", "shop"}) || o.role != "ours" ||
		!slices.Equal(o.Keys, []string{"a", "b-*=demo,shop"}) || o.MaxKeyAge != 47*time.Hour ||
		o.MaxGap != 72*time.Hour || o.OnlyUser ||
		o.log.Level != "debug" || !o.IncludeManaged || !o.Scheduled || o.StateNamespace != "elsewhere" || o.Retire {
		t.Errorf("options: %+v", o)
	}
	o = chartOptions(t, "elsewhere", `
rotator:
  cluster: true
  transitKeys: [a]
  retire: {enabled: true, onlyUser: true, after: 336h}
`)
	if !o.Retire || !o.OnlyUser || o.RetireAfter != 336*time.Hour || len(o.Namespaces) > 0 {
		t.Errorf("options: %+v", o)
	}
}

// TestChartDefaults verifies that the chart and the program have the same defaults, because
// the chart sets no flag for its defaults.
func TestChartDefaults(t *testing.T) {
	text, err := os.ReadFile("../../" + chart.Dir + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values struct {
		Vault struct {
			AuthMount string `json:"authMount"`
		}
		Rotator struct {
			Retire struct{ After string }
		}
	}
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	o := chartOptions(t, rotator.DefaultStateNamespace, "rotator: {transitKeys: [a]}")
	if after, err := time.ParseDuration(values.Rotator.Retire.After); err != nil || after != o.RetireAfter ||
		o.MaxGap != rotator.DefaultMaxGap || values.Vault.AuthMount != o.vault.AuthMount ||
		o.StateNamespace != rotator.DefaultStateNamespace {
		t.Errorf("chart: %+v, program: %+v", values, o)
	}
}
