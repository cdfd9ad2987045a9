package main

import (
	"go/ast"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

// TestEveryTargetHasSeeds checks the source of each target. `make test` runs the seeds, and does not fail for a target
// without seeds; a run of this program counts them.
func TestEveryTargetHasSeeds(t *testing.T) {
	root, err := programs.Root()
	if err != nil {
		t.Fatal(err)
	}
	targets, err := discover(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if len(targets) < 9 {
		t.Errorf("only %d targets were discovered: %v", len(targets), targets)
	}
	for _, target := range targets {
		kept, _ := filepath.Glob(filepath.Join(target.dir, "testdata", "fuzz", target.name, "*"))
		if len(kept) == 0 && !addsSeeds(target.decl) {
			t.Errorf("%s has no seeds: call f.Add", target)
		}
	}
}

// addsSeeds reports whether the target calls f.Add.
func addsSeeds(decl *ast.FuncDecl) (adds bool) {
	ast.Inspect(decl, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			f, ok := call.Fun.(*ast.SelectorExpr)
			adds = adds || ok && f.Sel.Name == "Add"
		}
		return true
	})
	return adds
}

// repository is a repository with targets that pass, that fail, and that have no seeds.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":        "module example.org/a\n\ngo 1.26.0\n",
		"nested/go.mod": "module example.org/b\n\ngo 1.26.0\n",
		"a/a_test.go": `package a

import "testing"

func FuzzFinds(f *testing.F) {
	f.Add("seed")
	f.Fuzz(func(t *testing.T, s string) {
		if s != "seed" {
			t.Error("planted")
		}
	})
}

func FuzzPasses(f *testing.F) {
	f.Add("seed")
	f.Fuzz(func(*testing.T, string) {})
}
`,
		"a/never_test.go": "//go:build never\n\npackage a\n\nimport \"testing\"\n\nfunc FuzzNever(f *testing.F) {}\n",
		"nested/b_test.go": `package b_test

import "testing"

func Fuzzy() {}

func FuzzSeedless(f *testing.F) { f.Fuzz(func(*testing.T, string) {}) }
`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if output, err := exec.CommandContext(t.Context(), "git", "init", "-q", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return dir
}

func TestDiscover(t *testing.T) {
	targets, err := discover(t.Context(), repository(t))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, target := range targets {
		got = append(got, target.String())
		if got, want := addsSeeds(target.decl), target.name != "FuzzSeedless"; got != want {
			t.Errorf("%s adds seeds: %t, want %t", target, got, want)
		}
	}
	want := []string{"example.org/a/a.FuzzFinds", "example.org/a/a.FuzzPasses", "example.org/b.FuzzSeedless"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestRun checks that a run finds the planted failure, continues with the other targets, keeps the input and fails.
func TestRun(t *testing.T) {
	dir := repository(t)
	var out strings.Builder
	err := run(t.Context(), []string{"-root", dir, "-time", "50x"}, &out)
	want := "2 of 3 targets failed: example.org/a/a.FuzzFinds, example.org/b.FuzzSeedless"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
	progress := "=== 2 of 3: example.org/a/a.FuzzPasses, for 50x"
	for _, text := range []string{progress, "planted", "the target has no seeds"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("the output lacks %q:\n%s", text, out.String())
		}
	}
	if kept, _ := filepath.Glob(filepath.Join(dir, "a/testdata/fuzz/FuzzFinds/*")); len(kept) != 1 {
		t.Errorf("failing inputs kept: %v", kept)
	}

	out.Reset()
	if err := run(t.Context(), []string{"-root", dir, "-time", "50x", "-run", "Passes"}, &out); err != nil {
		t.Errorf("%v:\n%s", err, out.String())
	}
	// The kept input is a seed now.
	err = run(t.Context(), []string{"-root", dir, "-time", "50x", "-run", "Finds"}, &out)
	if err == nil || !strings.Contains(out.String(), "a seed fails") {
		t.Errorf("got %v:\n%s", err, out.String())
	}
}

func TestRunRefuses(t *testing.T) {
	dir := repository(t)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"argument":   {[]string{"FuzzFinds"}, "unexpected arguments"},
		"regexp":     {[]string{"-run", "("}, "invalid -run"},
		"no target":  {[]string{"-root", dir, "-run", "FuzzNever"}, "none of the 3 targets"},
		"no targets": {[]string{"-root", t.TempDir()}, "ls-files"},
	} {
		if err := run(t.Context(), test.args, io.Discard); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}
