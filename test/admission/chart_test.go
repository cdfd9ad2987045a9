package admission

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"
)

// values are the chart's defaults, but for what is off.
const values = `
admission:
  enabled: true
  failurePolicy: Fail
  validationActions: [Deny]
  forbidPlaintext:
    enabled: true
    namespaceSelector:
      matchLabels:
        secretmanager.io/plaintext: forbidden
    exceptTypes:
    - kubernetes.io/service-account-token
    - kubernetes.io/dockercfg
    - kubernetes.io/dockerconfigjson
    - kubernetes.io/tls
    - bootstrap.kubernetes.io/token
    - helm.sh/release.v1
    exceptUsers: []
`

// The templates of the chart make of their defaults what manifests/ has.
func TestChartAgrees(t *testing.T) {
	var defaults map[string]any
	if err := yaml.Unmarshal([]byte(values), &defaults); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{Ciphertext, ForbidPlaintext} {
		want, err := Load(folder)
		if err != nil {
			t.Fatal(err)
		}
		var policy admissionv1.ValidatingAdmissionPolicy
		var binding admissionv1.ValidatingAdmissionPolicyBinding
		for part, into := range map[string]any{"policy": &policy, "binding": &binding} {
			if err := yaml.UnmarshalStrict([]byte(render(t, folder+"-"+part+".yaml", defaults)), into); err != nil {
				t.Errorf("%s of %s: %v", part, folder, err)
			}
		}
		// Two ways to write the same list.
		for _, p := range []*admissionv1.ValidatingAdmissionPolicy{&policy, want.ValidatingAdmissionPolicy} {
			for i, c := range p.Spec.MatchConditions {
				p.Spec.MatchConditions[i].Expression = strings.NewReplacer(" ", "", `"`, "'").Replace(c.Expression)
			}
		}
		if diff := cmp.Diff(want.ValidatingAdmissionPolicy, &policy); diff != "" {
			t.Errorf("the policies %s of manifests/ (-) and of the chart (+) differ:\n%s", folder, diff)
		}
		if diff := cmp.Diff(want.Binding, &binding); diff != "" {
			t.Errorf("the bindings %s of manifests/ (-) and of the chart (+) differ:\n%s", folder, diff)
		}
	}
}

func render(t *testing.T, name string, values map[string]any) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "charts", "secretmanager", "templates", "admission", name))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := template.New(name).Option("missingkey=error").Funcs(template.FuncMap{"toJson": func(v any) (string, error) {
		text, err := json.Marshal(v)
		return string(text), err
	}}).Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := parsed.Execute(&out, map[string]any{"Values": values}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
