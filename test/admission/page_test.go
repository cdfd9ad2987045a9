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

var (
	shell         = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	message       = regexp.MustCompile("(?ms)^```\n(.*?)^```$")
	kustomization = regexp.MustCompile("(?ms)^```yaml\n(apiVersion: kustomize.config.k8s.io.*?)^```$")
)

// page is docs/admission.md.
func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "admission.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func root(t *testing.T) string {
	t.Helper()
	root, err := programs.Root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// onPage returns the only block of the page that matches the pattern and contains the words.
func onPage(t *testing.T, pattern *regexp.Regexp, words string) string {
	t.Helper()
	var found []string
	for _, block := range pattern.FindAllStringSubmatch(page(t), -1) {
		if strings.Contains(block[1], words) {
			found = append(found, block[1])
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d blocks of docs/admission.md contain %q, want 1", len(found), words)
	}
	return found[0]
}

// fromPage builds the policy of the kustomization on the page that contains the words.
func fromPage(t *testing.T, words string) *Policy {
	t.Helper()
	p, err := Build(overlay(t, words), "/here")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// overlay returns a directory /here with that kustomization and manifests/.
func overlay(t *testing.T, words string) filesys.FileSystem {
	t.Helper()
	files := filesys.MakeFsInMemory()
	write := func(path string, text []byte) {
		if err := files.WriteFile(filepath.Join("/here", path), text); err != nil {
			t.Fatal(err)
		}
	}
	write("kustomization.yaml", []byte(onPage(t, kustomization, words)))
	for _, dir := range []string{Ciphertext, ForbidPlaintext} {
		for _, name := range []string{"kustomization.yaml", "policy.yaml", "binding.yaml"} {
			path := filepath.Join("manifests", "admission", dir, name)
			text, err := os.ReadFile(filepath.Join(root(t), path))
			if err != nil {
				t.Fatal(err)
			}
			write(path, text)
		}
	}
	return files
}
