package main

import (
	"bytes"
	"os"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/test/chart"
)

// ofChart parses the flags that the Helm chart sets.
func ofChart(t *testing.T, values string) (*serveOptions, *appsv1.DaemonSet) {
	t.Helper()
	helm, err := chart.NewHelm(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	documents, err := helm.Template(t.Context(), "secretmanager-system", values)
	if err != nil {
		t.Fatal(err)
	}
	var set appsv1.DaemonSet
	if err := yaml.UnmarshalStrict([]byte(documents["provider/daemonset.yaml"][0]), &set); err != nil {
		t.Fatal(err)
	}
	o, err := parse(set.Spec.Template.Spec.Containers[0].Args,
		getenv(map[string]string{"VAULT_ADDR": "https://v:8200"}), &bytes.Buffer{})
	if err != nil {
		t.Fatalf("parsing the flags: %v", err)
	}
	return o, &set
}

// TestChart verifies that the program accepts every flag that the chart can set, with its value.
func TestChart(t *testing.T) {
	o, set := ofChart(t, `
vault:
  insecureHTTP: true
  namespace: team
  authMount: k8s
  audience: "https://vault.example"
  tlsServerName: vault
  ca: {secret: ca}
  clientCertificate: {secret: client}
provider:
  allowedAddresses: ["http://a:8200", "https://b:8200"]
  allowedAuthMounts: [jwt, k8s/other]
  inlineAuth: [k8s, k8s/other]
  allowedNamespaces: [team/a]
  mountTimeoutSeconds: 110
  republishCache: 32Mi
  logLevel: debug
  extraArgs: ["--pprof-addr=127.0.0.1:6060"]
`)
	if o.vault.Namespace != "team" || o.vault.AuthMount != "k8s" || o.audience != "https://vault.example" ||
		o.vault.TLSServerName != "vault" ||
		o.vault.CACert == "" || o.vault.ClientCert == "" || o.vault.ClientKey == "" || len(o.allowed) != 2 ||
		!o.vault.InsecureHTTP || !slices.Equal(o.authMounts, []string{"jwt", "k8s/other"}) ||
		!slices.Equal(o.inlineAuth, []string{"k8s", "k8s/other"}) || !slices.Equal(o.namespaces, []string{"team/a"}) ||
		o.mountTimeout != maxMountTimeout || o.republishCache != 32<<20 || o.log.Level != "debug" || o.pprofAddr == "" {
		t.Errorf("the flags set %+v", o)
	}
	// The longest mount too must end within the grace period.
	pod := set.Spec.Template.Spec
	for what, grace := range map[string]int64{
		"at the end":           *pod.TerminationGracePeriodSeconds,
		"after a failed probe": *pod.Containers[0].LivenessProbe.TerminationGracePeriodSeconds,
	} {
		if got := time.Duration(grace) * time.Second; got < maxMountTimeout+5*time.Second {
			t.Errorf("the grace period %s is %s, and a mount may take %s", what, got, maxMountTimeout)
		}
	}
}

// TestChartDefaults verifies that the chart's defaults are those of the program, because the chart
// sets no flag for them.
func TestChartDefaults(t *testing.T) {
	text, err := os.ReadFile("../../" + chart.Dir + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values struct {
		Name  string
		Vault struct {
			AuthMount string `json:"authMount"`
			Audience  string
		}
		Provider struct {
			MountTimeoutSeconds int    `json:"mountTimeoutSeconds"`
			RepublishCache      string `json:"republishCache"`
		}
	}
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	cache, err := resource.ParseQuantity(values.Provider.RepublishCache)
	if err != nil {
		t.Fatal(err)
	}
	o, _ := ofChart(t, "")
	if o.endpoint != defaultEndpoint || o.versionKeyFile != defaultVersionKey {
		t.Errorf("socket %s, version key file %s", o.endpoint, o.versionKeyFile)
	}
	if values.Vault.AuthMount != o.vault.AuthMount || values.Vault.Audience != o.audience ||
		time.Duration(values.Provider.MountTimeoutSeconds)*time.Second != o.mountTimeout ||
		cache.Value() != o.republishCache {
		t.Errorf("the chart has %+v, the program %+v", values, o)
	}
}
