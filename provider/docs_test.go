package provider

import (
	"fmt"
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
	fields, limits, ok := strings.Cut(fields, "\n## Limits\n")
	if !ok {
		t.Fatal("the page has no part on limits")
	}
	for _, text := range []string{
		bytesText(maxRequest) + " as JSON |", fmt.Sprintf("%s as JSON, %d names |", bytesText(maxAttributes), maxParameters),
		fmt.Sprintf("| each parameter except `objects` | %s |", bytesText(maxParameter)),
		fmt.Sprintf("| `objects` | %s, %d items, %s values |", bytesText(maxObjectsBytes), maxObjects, thousands(maxNodes)),
		fmt.Sprintf("| `objectName` | %d directories |", maxFolders), fmt.Sprintf("| `field` | %s, %d parts |", bytesText(maxField), maxDepth),
		fmt.Sprintf("%s, %d audiences |", bytesText(maxTokenBytes), maxTokens), fmt.Sprintf("| the Secret | %s entries |", thousands(maxEntries)),
		fmt.Sprintf("read as the pod | %s |", bytesText(maxSecretAnswer)), fmt.Sprintf("%s values, %d levels |", thousands(maxNodes), maxDepth),
		fmt.Sprintf("| %d,000,000 values |", maxWork/1_000_000), fmt.Sprintf("| all files of a volume | %s |", bytesText(maxAnswer)),
		fmt.Sprintf("At most %d problems", maxProblems), fmt.Sprintf("`GOMEMLIMIT` (%d MiB where", defaultMemory>>20), fmt.Sprintf("and %d MiB for", baseMemory>>20),
	} {
		if !strings.Contains(limits, text) {
			t.Errorf("the part on limits does not have %q", text)
		}
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
		r, failed := plainProvider(t).parse(&v1alpha1.MountRequest{Attributes: toJSON(class.Spec.Parameters)})
		if failed != nil {
			t.Fatal(failed)
		}
		if len(r.objects) != 3 {
			t.Errorf("%d objects", len(r.objects))
		}
	})
}

// thousands writes a limit as the page has it.
func thousands(n int) string { return fmt.Sprintf("%d,%03d", n/1000, n%1000) }
