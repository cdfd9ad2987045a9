package chart

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// A manifest is a file below manifests/ and the template that it is rendered from.
type manifest struct {
	file, template string
	// without is a line that is left out, for what a kustomization fills in.
	without string
}

// table has every file of manifests/ that comes from the chart. To have one more
// takes a line here, and one in the kustomization.yaml beside it, which is written by
// hand as are the namespace, the driver's object and Vault's policies.
var table = []manifest{
	{file: "provider/serviceaccount.yaml", template: "provider/serviceaccount.yaml"},
	{file: "provider/daemonset.yaml", template: "provider/daemonset.yaml"},
	{file: "provider/networkpolicy.yaml", template: "provider/networkpolicy.yaml"},
	{file: "rotator/serviceaccount.yaml", template: "rotator/serviceaccount.yaml"},
	{file: "rotator/role.yaml", template: "rotator/role.yaml"},
	{file: "rotator/clusterrole.yaml", template: "rotator/clusterrole.yaml"},
	{file: "rotator/state.yaml", template: "rotator/state.yaml"},
	{file: "rotator/networkpolicy.yaml", template: "rotator/networkpolicy.yaml"},
	{file: "rotator/cronjob.yaml", template: "rotator/cronjob.yaml"},
	{file: "rotator/cluster/clusterrolebinding.yaml", template: "rotator/clusterrolebinding.yaml"},
	{file: "exporter/serviceaccount.yaml", template: "exporter/serviceaccount.yaml"},
	{file: "exporter/role.yaml", template: "exporter/role.yaml"},
	{file: "exporter/networkpolicy.yaml", template: "exporter/networkpolicy.yaml"},
	{file: "exporter/deployment.yaml", template: "exporter/deployment.yaml"},
	{file: "monitoring/podmonitor.yaml", template: "monitoring/podmonitor.yaml"},
	{file: "monitoring/prometheusrule.yaml", template: "monitoring/prometheusrule.yaml"},
	{file: "admission/ciphertext/policy.yaml", template: "admission/ciphertext-policy.yaml"},
	{file: "admission/ciphertext/binding.yaml", template: "admission/ciphertext-binding.yaml"},
	{file: "admission/forbid-plaintext/policy.yaml", template: "admission/forbid-plaintext-policy.yaml"},
	{file: "admission/forbid-plaintext/binding.yaml", template: "admission/forbid-plaintext-binding.yaml"},
	{file: "rotator/namespace/rolebinding.yaml", template: "rotator/rolebinding.yaml", without: "  namespace: demo\n"},
}

// manifestNamespace is where the objects of manifests/ are.
const manifestNamespace = "secretmanager-system"

// manifestValues are those that manifests/ is rendered with. The ConfigMap is made by
// kustomize, which restarts the pods when it changes.
const manifestValues = `
vault: {existingConfigMap: secretmanager-vault}
rotator: {cluster: true}
monitoring: {podMonitor: {enabled: true}, prometheusRule: {enabled: true}}
admission: {enabled: true, forbidPlaintext: {enabled: true}}
`

// namespaceValues render what a rotator gets for one namespace, of which a
// kustomization says the name.
const namespaceValues = `
rotator: {namespaces: [demo]}
`

var trailing = regexp.MustCompile(`(?m)[ \t]+$`)

// Manifests renders the files of manifests/, by their paths below it.
func Manifests(ctx context.Context, helm *Helm) (map[string]string, error) {
	documents, err := helm.Template(ctx, manifestNamespace, manifestValues)
	if err != nil {
		return nil, err
	}
	inNamespace, err := helm.Template(ctx, manifestNamespace, namespaceValues)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, m := range table {
		from := documents[m.template]
		if m.without != "" {
			from = inNamespace[m.template]
		}
		text := strings.Join(from, "---\n")
		if text == "" {
			return nil, fmt.Errorf("nothing is rendered from template %s", m.template)
		}
		if m.without != "" {
			if strings.Count(text, m.without) != 1 {
				return nil, fmt.Errorf("template %s does not have the line %q once", m.template, m.without)
			}
			text = strings.Replace(text, m.without, "", 1)
		}
		// What is indented as a whole has its empty lines indented too.
		files[m.file] = trailing.ReplaceAllString(text, "")
	}
	return files, nil
}
