package docs

import (
	"go/scanner"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestErrorsOfProgramsExist checks that the shipped code contains the errors of rotation
// and command line in docs/reference/errors.md, so that none changes without the page.
// Tests of package provider cause each error of a mount.
func TestErrorsOfProgramsExist(t *testing.T) {
	var code strings.Builder
	for _, file := range files(t, ".go") {
		path, err := filepath.Rel(root(t), file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(path, "_test.go") && !strings.HasPrefix(path, "test/") {
			texts(&code, read(t, file))
		}
	}
	_, page, _ := strings.Cut(read(t, filepath.Join(root(t), "docs", "reference", "errors.md")), "\n## Of a rotation\n")
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(page, -1)
	if len(rows) < 20 {
		t.Errorf("found only %d texts", len(rows))
	}
	for _, m := range rows {
		if !strings.Contains(code.String(), m[1]) {
			t.Errorf("no program has the text %q", m[1])
		}
	}
}

// texts appends the string literals of a Go file, without its comments.
func texts(to *strings.Builder, source string) {
	var s scanner.Scanner
	fset := token.NewFileSet()
	s.Init(fset.AddFile("", -1, len(source)), []byte(source), nil, 0)
	for {
		_, tok, lit := s.Scan()
		if tok == token.EOF {
			return
		}
		if tok == token.STRING {
			text, _ := strconv.Unquote(lit) // valid, because the file compiles
			to.WriteString(text + "\n")
		}
	}
}
