package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// targetName matches the name of a Fuzz function, as the go command does.
var targetName = regexp.MustCompile(`^Fuzz($|\P{Ll})`)

// A target is a Fuzz function.
type target struct {
	name string
	dir  string // of its package, absolute
	pkg  string // import path
	decl *ast.FuncDecl
}

func (t target) String() string { return t.pkg + "." + t.name }

// discover returns the targets of all modules of the repository, in order.
func discover(ctx context.Context, root string) ([]target, error) {
	output, err := command(ctx, root, "git", "ls-files", "-co", "--exclude-standard", "-z", "go.mod", "*/go.mod")
	if err != nil {
		return nil, err
	}
	var found []target
	for name := range strings.SplitSeq(strings.TrimRight(string(output), "\x00"), "\x00") {
		targets, err := inModule(ctx, filepath.Join(root, path.Dir(name)))
		if err != nil {
			return nil, err
		}
		found = append(found, targets...)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no Fuzz target in %s", root)
	}
	return found, nil
}

// inModule returns the targets of the module in the directory. The go command selects the files, so that build
// constraints and testdata are handled as in a build.
func inModule(ctx context.Context, dir string) ([]target, error) {
	output, err := command(ctx, dir, "go", "list", "-find", "-json=Dir,ImportPath,TestGoFiles,XTestGoFiles", "./...")
	if err != nil {
		return nil, err
	}
	var found []target
	for d := json.NewDecoder(strings.NewReader(string(output))); ; {
		var pkg struct {
			Dir, ImportPath           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := d.Decode(&pkg); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading the output of go list in %s: %w", dir, err)
		}
		for _, file := range append(pkg.TestGoFiles, pkg.XTestGoFiles...) {
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(pkg.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			for _, decl := range parsed.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && targetName.MatchString(f.Name.Name) {
					found = append(found, target{name: f.Name.Name, dir: pkg.Dir, pkg: pkg.ImportPath, decl: f})
				}
			}
		}
	}
}

func command(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var problem strings.Builder
	cmd.Stderr = &problem
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s in %s: %w: %s", name, args[0], dir, err, problem.String())
	}
	return output, nil
}
