package chart

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// A manifest is a file below manifests/, and the template that renders it.
type manifest struct {
	file, template string
	// omit is a line that the file omits, because a kustomization adds it.
	omit string
}

// table has every file of manifests/ that is generated from the chart. A new file needs a line here, and one in its
// kustomization.yaml. The kustomizations, the namespace, the CSIDriver and the Vault policies are written by hand.
var table = []manifest{
	{file: "provider/serviceaccount.yaml", template: "provider/serviceaccount.yaml"},
	{file: "provider/daemonset.yaml", template: "provider/daemonset.yaml"},
	{file: "provider/networkpolicy.yaml", template: "provider/networkpolicy.yaml"},
	{file: "rotator/serviceaccount.yaml", template: "rotator/serviceaccount.yaml"},
	{file: "rotator/role.yaml", template: "rotator/role.yaml"},
	{file: "rotator/clusterrole.yaml", template: "rotator/clusterrole.yaml"},
	{file: "rotator/admissionpolicy.yaml", template: "rotator/admissionpolicy.yaml"},
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
	{file: "rotator/namespace/rolebinding.yaml", template: "rotator/rolebinding.yaml", omit: "  namespace: demo\n"},
}

// manifestNamespace is the namespace of the objects in manifests/.
const manifestNamespace = "secretmanager-system"

// manifestValues are the values of manifests/. Kustomize generates the ConfigMap, which restarts the pods when it
// changes.
const manifestValues = `
vault: {existingConfigMap: secretmanager-vault}
rotator: {cluster: true}
monitoring: {podMonitor: {enabled: true}, prometheusRule: {enabled: true}}
admission: {enabled: true, forbidPlaintext: {enabled: true}}
`

// namespaceValues are the values of the rights of the rotator in one namespace. A kustomization sets its name.
const namespaceValues = `
rotator: {namespaces: [demo]}
`

var trailing = regexp.MustCompile(`(?m)[ \t]+$`)

// helmLabels are the labels that are true only for objects that Helm installed. The version is one of them: a
// kustomization sets the tag of the image itself.
var helmLabels = regexp.MustCompile(`(?m)^ *(helm\.sh/chart|app\.kubernetes\.io/(managed-by|version)): .*\n`)

// Manifests renders the files of manifests/, by their paths in it.
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
		if m.omit != "" {
			from = inNamespace[m.template]
		}
		text := strings.Join(from, "---\n")
		if text == "" {
			return nil, fmt.Errorf("template %s renders nothing", m.template)
		}
		if m.omit != "" {
			if strings.Count(text, m.omit) != 1 {
				return nil, fmt.Errorf("template %s must render the line %q once", m.template, m.omit)
			}
			text = strings.Replace(text, m.omit, "", 1)
		}
		// Indentation of a whole block also indents its empty lines.
		files[m.file] = helmLabels.ReplaceAllString(trailing.ReplaceAllString(text, ""), "")
	}
	return files, nil
}
