package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

var address = regexp.MustCompile(`[a-z]+://[^\s"'` + "`" + `]*`)

// addresses are the addresses in the programs: examples and texts for users. No program
// connects to any of them by itself: docs/air-gapped.md.
var addresses = map[string]bool{
	"https://":                       true, // followed by an address from the cluster
	"https://HOST:PORT%s":            true,
	"https://[fd00::1]:8200":         true,
	"https://HOST:8200":              true,
	"https://HOST:8200,":             true,
	"https://API-SERVER:6443":        true,
	"https://kubernetes.default.svc": true,
	// What doctor prints for a cluster without the driver.
	"https://kubernetes-sigs.github.io/secrets-store-csi-driver/charts": true,
	// The driver that we test.
	"https://raw.githubusercontent.com/kubernetes-sigs/secrets-store-csi-driver/v" + programs.Driver.Default +
		"/deploy/": true,
}

// TestAddressesInThePrograms checks that the programs contain no other address, so that
// they cannot send data to anybody.
func TestAddressesInThePrograms(t *testing.T) {
	found := map[string]bool{}
	for _, file := range files(t, ".go") {
		name, _ := filepath.Rel(root(t), file)
		top, _, _ := strings.Cut(filepath.ToSlash(name), "/")
		if strings.HasSuffix(name, "_test.go") || top == "test" || top == "examples" || top == "tools" {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
				for _, a := range address.FindAllString(text.Value, -1) {
					found[a] = true
					if !addresses[a] {
						t.Errorf("%s has the address %s", name, a)
					}
				}
			}
			return true
		})
	}
	for a := range addresses {
		if !found[a] {
			t.Errorf("no program has the address %s", a)
		}
	}
}
