package admission

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

var kustomization = regexp.MustCompile("(?ms)^```yaml\n(apiVersion: kustomize.config.k8s.io.*?)^```$")

// fromPage builds the policy of the one kustomization in docs/admission.md that
// has these words.
func fromPage(t *testing.T, words string) *Policy {
	t.Helper()
	root, err := programs.Root()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "admission.md"))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, block := range kustomization.FindAllStringSubmatch(string(page), -1) {
		if strings.Contains(block[1], words) {
			found = append(found, block[1])
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d kustomizations in docs/admission.md have %q", len(found), words)
	}
	files := filesys.MakeFsInMemory()
	for _, name := range []string{"kustomization.yaml", "policy.yaml", "binding.yaml"} {
		dir := filepath.Join("manifests", "admission", ForbidPlaintext)
		text, err := os.ReadFile(filepath.Join(root, dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := files.WriteFile(filepath.Join("/here", dir, name), text); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.WriteFile("/here/kustomization.yaml", []byte(found[0])); err != nil {
		t.Fatal(err)
	}
	p, err := Build(files, "/here")
	if err != nil {
		t.Fatal(err)
	}
	return p
}
