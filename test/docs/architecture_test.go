package docs

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
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

// pkg is a package that is shipped, without its tests, as go list prints it.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string // direct and indirect
}

// name returns the path of a package within the module, and "secretmanager" for the root.
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

// node returns the name of a package in the picture, which has one node for all verbs.
func node(name string) string {
	if isVerb(name) {
		return "internal/cli/VERB"
	}
	return name
}

// imports returns the imports between shipped packages, sorted, as "FROM -> TO".
func imports(t *testing.T) []string {
	t.Helper()
	var found []string
	for from, p := range packages(t) {
		if strings.HasPrefix(from, "test/") {
			continue
		}
		for _, to := range p.Imports {
			if ours(to) {
				found = append(found, node(from)+" -> "+node(name(to)))
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func architecture(t *testing.T) string {
	t.Helper()
	return read(t, filepath.Join(root(t), "ARCHITECTURE.md"))
}

// TestPictureMatchesImports checks that the arrows in ARCHITECTURE.md are exactly the
// imports between our packages.
func TestPictureMatchesImports(t *testing.T) {
	var drawn []string
	for _, b := range pages.Blocks(architecture(t)) {
		if b.Kind != "mermaid" {
			continue
		}
		for _, m := range regexp.MustCompile(`(?m)^\s*(\S+) --> (\S+)$`).FindAllStringSubmatch(b.Text, -1) {
			drawn = append(drawn, m[1]+" -> "+m[2])
		}
	}
	slices.Sort(drawn)
	if diff := cmp.Diff(imports(t), drawn); diff != "" {
		t.Errorf("ARCHITECTURE.md (-imports +picture):\n%s", diff)
	}
}

var code = regexp.MustCompile("`([^`]+)`")

// TestImportsAreExplained checks that each import is in exactly one row of the table
// in ARCHITECTURE.md, and that each row has a reason.
func TestImportsAreExplained(t *testing.T) {
	var explained []string
	for _, row := range rows(part(t, architecture(t), "Why each import exists")) {
		if len(row) != 3 || row[2] == "" {
			t.Errorf("row without imported package, importers or reason: %q", row)
			continue
		}
		for _, from := range code.FindAllStringSubmatch(row[1], -1) {
			explained = append(explained, from[1]+" -> "+strings.Trim(row[0], "`"))
		}
	}
	slices.Sort(explained)
	if diff := cmp.Diff(imports(t), explained); diff != "" {
		t.Errorf("ARCHITECTURE.md (-imports +explained):\n%s", diff)
	}
}

// TestLayers checks that each package has a layer in ARCHITECTURE.md, and that no
// package imports one of a higher layer.
func TestLayers(t *testing.T) {
	layers, layer := map[string]int{}, 0
	for _, row := range rows(part(t, architecture(t), "The packages")) {
		if row[0] != "" {
			layer++
		}
		for _, m := range code.FindAllStringSubmatch(row[1], -1) {
			layers[strings.TrimSuffix(m[1], "/")] = layer
		}
	}
	layerOf := func(name string) int {
		for path := name; ; path = path[:strings.LastIndex(path, "/")] {
			if n := layers[path]; n > 0 {
				return n
			}
			if !strings.Contains(path, "/") {
				t.Errorf("%s has no layer", name)
				return 0
			}
		}
	}
	for _, arrow := range imports(t) {
		from, to, _ := strings.Cut(arrow, " -> ")
		if layerOf(from) < layerOf(to) {
			t.Errorf("%s imports %s, which is in a higher layer", from, to)
		}
	}
	for name := range packages(t) {
		if !strings.HasPrefix(name, "test/") {
			layerOf(name)
		}
	}
	if layer < 4 {
		t.Errorf("found only %d layers", layer)
	}
}

// TestImportRules checks the rules of ARCHITECTURE.md about indirect imports. depguard
// checks the others: .golangci.yml.
func TestImportRules(t *testing.T) {
	all := packages(t)
	need := func(names ...string) {
		for _, n := range names {
			if all[n].ImportPath == "" {
				t.Fatalf("package %s of a rule does not exist", n)
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
	// Neither the library nor a program that reads its secrets links the rotator.
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
		t.Errorf("found only %d verbs", verbs)
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
		module+"/internal/cli", module+"/internal/inventory", module+"/internal/doctor",
		module+"/internal/vaultsetup", module+"/internal/lint")
	need("internal/cli", "internal/inventory", "internal/doctor", "internal/vaultsetup", "internal/lint")
	never("cmd/secretmanager-provider", commandLine)
	never("cmd/secretmanager-rotator", commandLine)
	never("cmd/secretmanager", below(module+"/provider"))
	need("internal/manifest")
	never(
		"cmd/secretmanager-provider",
		below(module+"/internal/manifest", "k8s.io/client-go/kubernetes", "k8s.io/client-go/informers",
			"k8s.io/client-go/dynamic", module+"/rotator"),
	)
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

// TestOneConstructorForHTTPServers checks that only internal/httpserver, which bounds
// what clients can cost, serves HTTP in the programs.
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
			t.Errorf("%s imports net/http as ., which hides servers from this test", path)
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

// TestFilesNamedInTheArchitecture checks that the files that the page names exist.
func TestFilesNamedInTheArchitecture(t *testing.T) {
	existing := map[string]bool{}
	for _, file := range files(t, ".go") {
		existing[filepath.Base(file)] = true
	}
	names := regexp.MustCompile("`(\\w+\\.go)`").FindAllStringSubmatch(architecture(t), -1)
	for _, m := range names {
		if !existing[m[1]] {
			t.Errorf("file %s does not exist", m[1])
		}
	}
	if len(names) < 10 {
		t.Errorf("found only %d names", len(names))
	}
}

// TestDirectoriesInContributing checks that the table of directories in CONTRIBUTING.md
// has every directory of the repository, and only those.
func TestDirectoriesInContributing(t *testing.T) {
	top := root(t)
	listed := map[string]bool{}
	for _, row := range rows(part(t, read(t, filepath.Join(top, "CONTRIBUTING.md")), "Where things are")) {
		for _, m := range code.FindAllStringSubmatch(row[0], -1) {
			dir := strings.TrimSuffix(m[1], "/")
			if dir == "*.go" {
				continue
			}
			listed[dir] = true
			if info, err := os.Stat(filepath.Join(top, dir)); err != nil || !info.IsDir() {
				t.Errorf("CONTRIBUTING.md lists %s, which is not a directory", dir)
			}
		}
	}
	// The first level, and the second where the table has rows of the second level.
	for _, pattern := range []string{"[a-z]*", "internal/*", "test/*", "tools/*", "charts/*"} {
		found, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			name, _ := filepath.Rel(top, path)
			name = filepath.ToSlash(name)
			split := slices.Contains([]string{"internal", "test", "tools", "charts", "bin", "dist", "dist-fips"}, name)
			if info, err := os.Stat(path); err != nil || !info.IsDir() || split || listed[name] {
				continue
			}
			t.Errorf("the table in CONTRIBUTING.md has no row for %s", name)
		}
	}
}
