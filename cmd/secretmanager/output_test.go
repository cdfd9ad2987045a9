package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// outputDirs are the directories whose code writes to the streams of a verb.
var outputDirs = []string{"../../internal/cli/", "../../internal/inventory/", "../../internal/manifestfile/"}

// Verbs write everything but constants with package display, as it may have text of others.
func TestOutputIsEscaped(t *testing.T) {
	var names []string
	check(t, filepath.WalkDir("../../internal", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") &&
			slices.ContainsFunc(outputDirs, func(dir string) bool { return strings.HasPrefix(path, dir) }) {
			names = append(names, path)
		}
		return err
	}))
	files := token.NewFileSet()
	// Buffers, and writers that escape.
	fine := []string{"&b", "b", "w"}
	calls := 0
	for _, name := range names {
		file, err := parser.ParseFile(files, name, nil, 0)
		check(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			name := types.ExprString(call.Fun)
			if !slices.Contains([]string{"fmt.Fprint", "fmt.Fprintf", "fmt.Fprintln", "io.WriteString"}, name) {
				return true
			}
			calls++
			constant := !slices.ContainsFunc(call.Args[1:], func(a ast.Expr) bool {
				_, literal := a.(*ast.BasicLit)
				return !literal
			})
			if to := types.ExprString(call.Args[0]); !constant && !slices.Contains(fine, to) {
				t.Errorf("%s: %s to %s: write it with package display", files.Position(call.Pos()), name, to)
			}
			return true
		})
	}
	if calls < 10 {
		t.Errorf("only %d calls were checked", calls)
	}
}
