// Package docs checks the documentation: YAML in the pages and examples is valid for
// the programs, kustomizations build, links and named tests exist, and the import graph
// of the packages is documented.
package docs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/provider"
	"github.com/secretmanager-io/secretmanager/test/pages"
	"github.com/secretmanager-io/secretmanager/test/programs"
	"github.com/secretmanager-io/secretmanager/transit"
)

func root(t *testing.T) string {
	t.Helper()
	dir, err := programs.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// files returns the files of the repository with one of the suffixes.
func files(t *testing.T, endings ...string) []string {
	t.Helper()
	var found []string
	top := root(t)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != top && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		for _, ending := range endings {
			if strings.HasSuffix(path, ending) && !d.IsDir() {
				found = append(found, path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatalf("no file has any of the suffixes %v", endings)
	}
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestYAMLInThePages(t *testing.T) {
	n := 0
	for _, page := range files(t, ".md") {
		for _, b := range pages.Blocks(read(t, page)) {
			if b.Kind != "yaml" {
				continue
			}
			n++
			name, _ := filepath.Rel(root(t), page)
			t.Run(fmt.Sprintf("%s:%d", name, b.Line), func(t *testing.T) { checkAll(t, b.Text) })
		}
	}
	if n < 3 {
		t.Errorf("found only %d blocks of YAML", n)
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinksInThePages checks that links within the repository lead to existing files and
// headings.
func TestLinksInThePages(t *testing.T) {
	anchored := 0
	for _, page := range files(t, ".md") {
		for _, m := range link.FindAllStringSubmatch(pages.Prose(read(t, page)), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			target, anchor, _ := strings.Cut(m[1], "#")
			file := page
			if target != "" {
				file = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s links to %s, which does not exist", page, m[1])
				continue
			}
			if anchor == "" {
				continue
			}
			anchored++
			if !strings.HasSuffix(file, ".md") || !pages.Anchors(read(t, file))[anchor] {
				t.Errorf("%s links to %s: no such heading", page, m[1])
			}
		}
	}
	if anchored < 3 {
		t.Errorf("found only %d links to headings", anchored)
	}
}

// TestGlossary checks that the terms are sorted, and that each links to its explanation.
func TestGlossary(t *testing.T) {
	_, table, _ := strings.Cut(read(t, filepath.Join(root(t), "docs", "glossary.md")), "\n\n")
	var terms []string
	for _, row := range rows(table) {
		terms = append(terms, strings.ToLower(strings.ReplaceAll(row[0], "`", "")))
		if len(row) != 2 || !link.MatchString(row[1]) {
			t.Errorf("term without a link to its explanation: %q", row)
		}
	}
	if !slices.IsSorted(terms) || len(terms) < 30 {
		t.Errorf("the terms are not sorted, or too few: %q", terms)
	}
}

func TestKustomizationsBuild(t *testing.T) {
	for _, file := range files(t, "kustomization.yaml") {
		dir := filepath.Dir(file)
		name, _ := filepath.Rel(root(t), dir)
		if strings.HasPrefix(name, "test") {
			continue // overlays of the end-to-end tests, which apply them
		}
		t.Run(name, func(t *testing.T) {
			built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
			if err != nil {
				t.Fatal(err)
			}
			text, err := built.AsYaml()
			if err != nil {
				t.Fatal(err)
			}
			checkAll(t, string(text))
		})
	}
}

// checkAll checks each document of a YAML text.
func checkAll(t *testing.T, text string) {
	t.Helper()
	docs := utilyaml.NewDocumentDecoder(io.NopCloser(strings.NewReader(text)))
	defer docs.Close()
	buffer := make([]byte, 1<<20)
	for {
		n, err := docs.Read(buffer)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		check(t, buffer[:n])
	}
}

func check(t *testing.T, doc []byte) {
	t.Helper()
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(doc, &meta); err != nil {
		t.Errorf("%v in\n%s", err, doc)
		return
	}
	switch meta.Kind {
	case "": // values of a chart, or a part of an object
	case "Kustomization":
		var k types.Kustomization
		if err := yaml.UnmarshalStrict(doc, &k); err != nil {
			t.Errorf("%v in\n%s", err, doc)
		}
	case "SecretProviderClass":
		checkClass(t, doc)
	case "PrometheusRule":
		checkFields[prometheusRule](t, doc)
	case "PodMonitor":
		checkFields[podMonitor](t, doc)
	default:
		// Strict: an unknown field, which Kubernetes would ignore, is an error.
		decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
		if _, _, err := decoder.Decode(doc, nil, nil); err != nil {
			if runtime.IsNotRegisteredError(err) {
				t.Errorf("this test does not know kind %s", meta.Kind)
				return
			}
			t.Errorf("%v in\n%s", err, doc)
		}
	}
}

// checkClass passes the class to the provider. The request has no token, so valid
// parameters fail because of the token.
func checkClass(t *testing.T, doc []byte) {
	t.Helper()
	var class struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			Provider      string            `json:"provider"`
			Parameters    map[string]string `json:"parameters"`
			SecretObjects []struct {
				SecretName string            `json:"secretName"`
				Type       string            `json:"type"`
				Labels     map[string]string `json:"labels"`
				Data       []struct {
					ObjectName string `json:"objectName"`
					Key        string `json:"key"`
				} `json:"data"`
			} `json:"secretObjects"`
		} `json:"spec"`
	}
	if err := yaml.UnmarshalStrict(doc, &class); err != nil {
		t.Errorf("%v in\n%s", err, doc)
		return
	}
	switch class.Spec.Provider {
	case "secretmanager":
	case "vault": // the state before a migration
		return
	default:
		t.Errorf("provider %q", class.Spec.Provider)
	}
	p, err := provider.New(provider.Config{Vault: transit.Config{Address: "http://127.0.0.1:1"}, Audience: "vault",
		AllowedAuthMounts: []string{"jwt"}, // docs/vault-outside.md
		Log:               slog.New(slog.DiscardHandler), VersionKey: bytes.Repeat([]byte{1}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	attributes := map[string]string{
		"secretProviderClass":                      class.Name,
		"csi.storage.k8s.io/pod.name":              "pod",
		"csi.storage.k8s.io/pod.namespace":         "demo",
		"csi.storage.k8s.io/pod.uid":               "uid",
		"csi.storage.k8s.io/serviceAccount.name":   "matrix",
		"csi.storage.k8s.io/ephemeral":             "true",
		"csi.storage.k8s.io/serviceAccount.tokens": `{}`,
	}
	for k, v := range class.Spec.Parameters {
		attributes[k] = v
	}
	text, err := json.Marshal(attributes)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Mount(t.Context(), &v1alpha1.MountRequest{Attributes: string(text), Secrets: "null",
		TargetPath: "/target", Permission: "420"})
	if got := status.Code(err); got != codes.FailedPrecondition || !strings.Contains(err.Error(), "token") {
		t.Errorf("the provider returned %v for\n%s", err, doc)
	}
}
