package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// TestLabelsReference checks that docs/reference/labels.md has a row for exactly the
// types, labels and annotations among the constants and variables of package ciphertext.
func TestLabelsReference(t *testing.T) {
	label := regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+/`)
	want := []string{corev1.LastAppliedConfigAnnotation} // a constant of Kubernetes in package ciphertext
	for _, file := range files(t, ".go") {
		if filepath.Dir(file) != filepath.Join(root(t), "ciphertext") || strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			values, ok := decl.(*ast.GenDecl)
			if !ok || values.Tok == token.IMPORT {
				continue
			}
			ast.Inspect(values, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					name, err := strconv.Unquote(lit.Value)
					if err == nil && label.MatchString(name) && name != "secretmanager.io/" {
						want = append(want, name)
					}
				}
				return true
			})
		}
	}
	var got []string
	page := read(t, filepath.Join(root(t), "docs", "reference", "labels.md"))
	for _, cell := range regexp.MustCompile(`(?m)^\| [^|]+\|`).FindAllString(page, -1) { // the first of a row
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
			if label.MatchString(m[1]) {
				got = append(got, m[1])
			}
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/reference/labels.md (-code +page):\n%s", diff)
	}
}
