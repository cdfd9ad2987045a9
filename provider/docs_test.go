package provider

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

// TestReferencePage: the page has the parameters and fields that there are, in
// that order, and says of the same ones that they are required.
func TestReferencePage(t *testing.T) {
	text, err := os.ReadFile("../docs/reference/parameters.md")
	if err != nil {
		t.Fatal(err)
	}
	params, fields, ok := strings.Cut(string(text), "\n## Fields of `objects`\n")
	if !ok {
		t.Fatal("the page has no part on objects")
	}
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (.*?) \\|")
	rows := func(text string) (rows [][2]string) {
		for _, m := range row.FindAllStringSubmatch(text, -1) {
			required := ""
			if m[2] == "required" {
				required = m[2]
			}
			rows = append(rows, [2]string{m[1], required})
		}
		return rows
	}
	var want [][2]string
	for _, p := range known {
		required := ""
		if p.required {
			required = "required"
		}
		want = append(want, [2]string{p.name, required})
	}
	if diff := cmp.Diff(want, rows(params)); diff != "" {
		t.Errorf("parameters (-code +page):\n%s", diff)
	}
	want = nil
	for _, f := range objectFields {
		want = append(want, [2]string{f.name, map[bool]string{true: "required"}[f.name == "objectName"]})
	}
	if diff := cmp.Diff(want, rows(fields)); diff != "" {
		t.Errorf("fields (-code +page):\n%s", diff)
	}

	t.Run("example", func(t *testing.T) {
		_, block, _ := strings.Cut(fields, "```yaml\n")
		block, _, _ = strings.Cut(block, "```")
		var class struct {
			Spec struct{ Parameters map[string]string }
		}
		if err := yaml.Unmarshal([]byte(block), &class); err != nil {
			t.Fatal(err)
		}
		class.Spec.Parameters[keyPodNamespace] = "demo"
		r, failure := plainProvider(t).parse(&v1alpha1.MountRequest{Attributes: toJSON(class.Spec.Parameters)})
		if failure != nil {
			t.Fatal(failure)
		}
		if len(r.objects) != 3 {
			t.Errorf("%d objects", len(r.objects))
		}
	})
}
