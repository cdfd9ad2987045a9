package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// testOfFolder is how the page names a test: the folder, the function.
var testOfFolder = regexp.MustCompile("`([a-z0-9/-]+)\\.(Test[A-Za-z0-9]+)`")

// TestCompatibilityNamesTests: each line of a table names tests, and they are there.
func TestCompatibilityNamesTests(t *testing.T) {
	page := read(t, filepath.Join(root(t), "docs", "compatibility.md"))
	lines := 0
	for line := range strings.Lines(page) {
		names := testOfFolder.FindAllStringSubmatch(line, -1)
		row := strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| |")
		if row {
			lines++
		}
		if row && len(names) == 0 {
			t.Errorf("no test is named in: %s", line)
		}
		for _, name := range names {
			if !hasTest(t, name[1], name[2]) {
				t.Errorf("there is no test %s in %s, which docs/compatibility.md names", name[2], name[1])
			}
		}
	}
	if lines == 0 {
		t.Error("there is no table")
	}
	if hasTest(t, "provider", "TestNothing") || hasTest(t, "nowhere", "TestMain") {
		t.Error("a test is found that is not there")
	}
}

// hasTest looks for a test in a folder, whatever module it is of.
func hasTest(t *testing.T, folder, name string) bool {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root(t), folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == name {
				return true
			}
		}
	}
	return false
}
