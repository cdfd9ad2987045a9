package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// What a verb writes goes through package display, unless it is a constant, or into
// memory: text of others is in it sooner or later.
func TestOutputIsMadeFit(t *testing.T) {
	isTest := func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }
	files := token.NewFileSet()
	packages, err := parser.ParseDir(files, ".", isTest, 0) //nolint:staticcheck // one package, without build tags that matter
	check(t, err)
	// Writers that are memory, or a part of ours that made it fit.
	fine := []string{"&b", "b", "w"}
	calls := 0
	for _, file := range packages["main"].Files {
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
		t.Errorf("only %d calls looked at", calls)
	}
}
