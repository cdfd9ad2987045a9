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

// TestErrorsOfProgramsExist: the texts in the tables on rotation and command line of
// docs/reference/errors.md are in the code of what is shipped. Those of a mount are
// each made by a test of package provider, as are many of these by the tests of
// package rotator and by the scripts; this is so that none is changed without the page.
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
		t.Errorf("only %d texts were found", len(rows))
	}
	for _, m := range rows {
		if !strings.Contains(code.String(), m[1]) {
			t.Errorf("nothing says %q", m[1])
		}
	}
}

// texts collects the string literals of a Go file: a comment is not said to anybody.
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
			text, _ := strconv.Unquote(lit) // which the compiler has read as well
			to.WriteString(text + "\n")
		}
	}
}
