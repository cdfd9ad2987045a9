package docs

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/test/pages"
)

const module = "github.com/secretmanager-io/secretmanager"

// pkg is a package as go list knows it, of what is shipped: no tests.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string // all, by whatever detour
}

// name is the path within the module; that of the root is its own.
func name(path string) string {
	if path == module {
		return "secretmanager"
	}
	return strings.TrimPrefix(path, module+"/")
}

func ours(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

func packages(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		failed := (*exec.ExitError)(nil)
		if errors.As(err, &failed) {
			t.Log(string(failed.Stderr))
		}
		t.Fatal(err)
	}
	found := map[string]pkg{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		found[name(p.ImportPath)] = p
	}
	return found
}

// isVerb reports whether a package is a verb of the command line.
func isVerb(name string) bool {
	verb, below := strings.CutPrefix(name, "internal/cli/")
	return below && verb != "root" && verb != "filesecret"
}

// node is the name of a package in the picture, where all verbs are one node.
func node(name string) string {
	if isVerb(name) {
		return "internal/cli/VERB"
	}
	return name
}

// TestPictureMatchesImports: the arrows in ARCHITECTURE.md are the imports between
// our packages, no more and no fewer.
func TestPictureMatchesImports(t *testing.T) {
	var drawn, there []string
	for _, b := range pages.Blocks(read(t, filepath.Join(root(t), "ARCHITECTURE.md"))) {
		if b.Kind != "mermaid" {
			continue
		}
		for _, m := range regexp.MustCompile(`(?m)^\s*(\S+) --> (\S+)$`).FindAllStringSubmatch(b.Text, -1) {
			drawn = append(drawn, m[1]+" -> "+m[2])
		}
	}
	for from, p := range packages(t) {
		if strings.HasPrefix(from, "test/") {
			continue
		}
		for _, to := range p.Imports {
			if ours(to) {
				there = append(there, node(from)+" -> "+node(name(to)))
			}
		}
	}
	slices.Sort(drawn)
	slices.Sort(there)
	there = slices.Compact(there)
	if diff := cmp.Diff(there, drawn); diff != "" {
		t.Errorf("ARCHITECTURE.md (-imports +picture):\n%s", diff)
	}
}

// TestImportRules has the rules of ARCHITECTURE.md about indirect imports. depguard has
// the others: .golangci.yml.
func TestImportRules(t *testing.T) {
	all := packages(t)
	need := func(names ...string) {
		for _, n := range names {
			if all[n].ImportPath == "" {
				t.Fatalf("there is no package %s: the rule about it is no rule", n)
			}
		}
	}
	never := func(from string, forbidden func(path string) bool) {
		t.Helper()
		need(from)
		for _, dep := range all[from].Deps {
			if forbidden(dep) {
				t.Errorf("%s depends on %s", from, dep)
			}
		}
	}
	below := func(prefixes ...string) func(string) bool {
		return func(path string) bool {
			return slices.ContainsFunc(prefixes, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") })
		}
	}

	never("provider", below(module+"/rotator"))
	never("rotator", below(module+"/provider"))
	// Neither a program that reads its secrets nor the library links what rotates.
	never("secretmanager", below(module+"/rotator"))
	never("examples/decrypt", below(module+"/rotator"))
	verbs := 0
	for from := range all {
		if isVerb(from) {
			verbs++
			never(from, func(path string) bool { return isVerb(name(path)) })
		}
	}
	if verbs < 10 {
		t.Errorf("only %d verbs were found", verbs)
	}
	for from, p := range all {
		if strings.HasPrefix(from, "test/") {
			continue
		}
		for _, dep := range p.Deps {
			if dep == "testing" {
				t.Errorf("%s depends on %s", from, dep)
			}
		}
	}

	commandLine := below("github.com/spf13/cobra", "k8s.io/cli-runtime", "github.com/schollz/progressbar/v3",
		"sigs.k8s.io/kustomize",
		module+"/internal/cli", module+"/internal/inventory", module+"/internal/manifest", module+"/internal/doctor",
		module+"/internal/vaultsetup", module+"/internal/lint")
	need("internal/cli", "internal/inventory", "internal/manifest", "internal/doctor", "internal/vaultsetup",
		"internal/lint")
	never("cmd/secretmanager-provider", commandLine)
	never("cmd/secretmanager-rotator", commandLine)
	never("cmd/secretmanager", below(module+"/provider"))
	never("cmd/secretmanager-provider", below("k8s.io/client-go/kubernetes", "k8s.io/client-go/informers",
		"k8s.io/client-go/dynamic", module+"/rotator"))
	var apis []string
	for _, dep := range all["cmd/secretmanager-provider"].Deps {
		if strings.HasPrefix(dep, "k8s.io/api/") {
			apis = append(apis, dep)
		}
	}
	if diff := cmp.Diff([]string{"k8s.io/api/core/v1"}, apis); diff != "" {
		t.Errorf("APIs of Kubernetes in the provider (-want +got):\n%s", diff)
	}
}

// TestOneConstructorForHTTPServers: what serves HTTP in a program that is shipped has the
// bounds of internal/httpserver.
func TestOneConstructorForHTTPServers(t *testing.T) {
	servers := []string{"Server", "Serve", "ServeTLS", "ListenAndServe", "ListenAndServeTLS"}
	found := map[string]bool{}
	for _, file := range files(t, ".go") {
		path, err := filepath.Rel(root(t), file)
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.ToSlash(path)
		if strings.HasPrefix(path, "test/") || strings.HasSuffix(path, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		imported := ""
		for _, spec := range parsed.Imports {
			if spec.Path.Value == `"net/http"` {
				if imported = "http"; spec.Name != nil {
					imported = spec.Name.Name
				}
			}
		}
		if imported == "." {
			t.Errorf("%s imports net/http without a name, so its servers cannot be seen", path)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains(servers, s.Sel.Name) {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == imported {
					found[path] = true
				}
			}
			return true
		})
	}
	if diff := cmp.Diff(map[string]bool{"internal/httpserver/httpserver.go": true}, found); diff != "" {
		t.Errorf("files with HTTP servers (-want +got):\n%s", diff)
	}
}

// TestFilesNamedInTheArchitecture: the files that the page sends people to are there.
func TestFilesNamedInTheArchitecture(t *testing.T) {
	there := map[string]bool{}
	for _, file := range files(t, ".go") {
		there[filepath.Base(file)] = true
	}
	names := regexp.MustCompile("`(\\w+\\.go)`").
		FindAllStringSubmatch(read(t, filepath.Join(root(t), "ARCHITECTURE.md")), -1)
	for _, m := range names {
		if !there[m[1]] {
			t.Errorf("there is no file %s", m[1])
		}
	}
	if len(names) < 10 {
		t.Errorf("only %d names were found", len(names))
	}
}
