package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/yaml"
)

// What a verb writes goes through package display, unless it is a constant, or into
// memory: text of others is in it sooner or later.
func TestOutputIsMadeFit(t *testing.T) {
	names, err := filepath.Glob("*.go")
	check(t, err)
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
	files := token.NewFileSet()
	// Writers that are memory, or a part of ours that made it fit.
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
		t.Errorf("only %d calls looked at", calls)
	}
}

// A manifest that is printed says the same, whatever is in it, and does nothing else.
func TestPrintedManifestsAreHarmless(t *testing.T) {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{
		"a": evil, "b": "x\n::error::PWNED", "c": "##[error]PWNED", "d": "\u202e", "e": "::error::PWNED", "f": strings.Repeat("long ::error::PWNED ", 20), "g": "fine", "h": "\\##\\",
		"i": "two\nlines\n", "k": "#", evil: "key",
	}}}
	for _, format := range []string{"yaml", "json"} {
		var out bytes.Buffer
		p := &program{environment: environment{IOStreams: genericiooptions.IOStreams{Out: &out}}}
		check(t, p.printSecret(secret, format))
		for line := range strings.Lines(out.String()) {
			if why := acts(strings.TrimSuffix(line, "\n")); why != "" {
				t.Errorf("%s: %s: %q", format, why, line)
			}
		}
		var again corev1.Secret
		if err := yaml.UnmarshalStrict(out.Bytes(), &again); err != nil {
			t.Fatalf("%s: %v: %q", format, err, &out)
		}
		if diff := cmp.Diff(secret.Annotations, again.Annotations); diff != "" {
			t.Errorf("%s (-want +got):\n%s\n%s", format, diff, &out)
		}
	}
	// What most Secrets are is as kubectl would print it.
	var out bytes.Buffer
	p := &program{environment: environment{IOStreams: genericiooptions.IOStreams{Out: &out}}}
	check(t, p.printSecret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string][]byte{"b": []byte("c")}}, "yaml"))
	if want := "apiVersion: v1\ndata:\n  b: Yw==\nkind: Secret\nmetadata:\n  name: a\n"; out.String() != want {
		t.Errorf("%q", &out)
	}
}
