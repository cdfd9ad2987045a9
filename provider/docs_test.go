package provider

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/document"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// TestReferencePage verifies that the page has the limits and that its example is valid.
func TestParametersPage(t *testing.T) {
	text, err := os.ReadFile("../docs/reference/parameters.md")
	if err != nil {
		t.Fatal(err)
	}
	_, fields, ok := strings.Cut(string(text), "\n## Fields of `objects`\n")
	if !ok {
		t.Fatal("the page has no section on objects")
	}
	fields, limits, ok := strings.Cut(fields, "\n## Limits\n")
	if !ok {
		t.Fatal("the page has no section on limits")
	}
	for _, limit := range []string{
		bytesText(maxRequest) + " as JSON |", fmt.Sprintf("%s as JSON, %d names |", bytesText(maxAttributes), maxParameters),
		fmt.Sprintf("| each parameter except `objects` | %s |", bytesText(class.MaxParameter)),
		fmt.Sprintf("| `objects` | %s, %d items, %s values |", bytesText(class.MaxObjectsBytes), class.MaxObjects,
			thousands(document.MaxNodes)),
		fmt.Sprintf("| `objectName` | %d directories |", class.MaxDirectories),
		fmt.Sprintf("| `field` | %s, %d parts |", bytesText(document.MaxField), document.MaxDepth),
		fmt.Sprintf("%s, %d audiences |", bytesText(maxTokenBytes), maxTokens),
		fmt.Sprintf("| the Secret | %s entries |", thousands(maxEntries)),
		fmt.Sprintf("read as the pod | %s |", bytesText(maxSecretResponse)),
		fmt.Sprintf("%s values, %d levels |", thousands(document.MaxNodes), document.MaxDepth),
		fmt.Sprintf("| %d,000,000 values |", document.MaxWork/1_000_000),
		fmt.Sprintf("| all files of a volume | %s |", bytesText(maxResponse)),
		fmt.Sprintf("At most %d problems", failure.MaxProblems),
		fmt.Sprintf("`GOMEMLIMIT` (default %d MiB)", defaultMemory>>20), fmt.Sprintf("and %d MiB for", baseMemory>>20),
	} {
		if !strings.Contains(limits, limit) {
			t.Errorf("the section on limits does not have %q", limit)
		}
	}
	t.Run("example", func(t *testing.T) {
		_, block, _ := strings.Cut(fields, "```yaml\n")
		block, _, _ = strings.Cut(block, "```")
		var example struct {
			Spec struct{ Parameters map[string]string }
		}
		if err := yaml.Unmarshal([]byte(block), &example); err != nil {
			t.Fatal(err)
		}
		example.Spec.Parameters[class.AttributePodNamespace] = "demo"
		r, failed := plainProvider(t).parse(&v1alpha1.MountRequest{Attributes: toJSON(example.Spec.Parameters)})
		if failed != nil {
			t.Fatal(failed)
		}
		if len(r.Objects) != 3 {
			t.Errorf("%d objects", len(r.Objects))
		}
	})
}

// thousands formats a limit as on the page.
func thousands(n int) string { return fmt.Sprintf("%d,%03d", n/1000, n%1000) }
