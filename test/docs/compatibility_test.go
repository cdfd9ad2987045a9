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

// testInDir matches a test as the page names it: DIRECTORY.FUNCTION.
var testInDir = regexp.MustCompile("`([a-z0-9/-]+)\\.(Test[A-Za-z0-9]+)`")

// generated matches the table of the versions, which is a list of runs.
var generated = regexp.MustCompile("(?s)<!-- The table is generated .*<!-- End of the table. -->")

// TestCompatibilityNamesTests checks that each row of a table names tests that exist.
func TestCompatibilityNamesTests(t *testing.T) {
	page := read(t, filepath.Join(root(t), "docs", "compatibility.md"))
	page = generated.ReplaceAllString(page, "")
	lines := 0
	for line := range strings.Lines(page) {
		names := testInDir.FindAllStringSubmatch(line, -1)
		row := strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| |")
		if row {
			lines++
		}
		if row && len(names) == 0 {
			t.Errorf("the row names no test: %s", line)
		}
		for _, name := range names {
			if !hasTest(t, name[1], name[2]) {
				t.Errorf("docs/compatibility.md names the test %s, which is not in %s", name[2], name[1])
			}
		}
	}
	if lines == 0 {
		t.Error("found no table")
	}
	if hasTest(t, "provider", "TestNothing") || hasTest(t, "nowhere", "TestMain") {
		t.Error("found a test that does not exist")
	}
}

// hasTest reports whether a directory of any module has the test.
func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root(t), dir, "*_test.go"))
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
