package lint

import (
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/internal/lint"
)

// A workflow command is a single line, whatever its parts contain, and so is a line of text.
func TestLintEscapes(t *testing.T) {
	result := result{
		Findings: []lint.Finding{{File: "a,b:c%\r\n::d", Line: 3, Severity: lint.Warning, Rule: "r",
			Message: "x: y, 5%\r\n::z"}}}
	for format, want := range map[string]string{
		"github": "::warning file=a%2Cb%3Ac%25%0D%0A%3A%3Ad,line=3,title=secretmanager lint%3A r::x: y, 5%25%0D%0A::z\n",
		"":       `a,b:c%\r\n::d:3: warning: ` + `x: y, 5%\r\n::z` + " (r)\n",
	} {
		var out strings.Builder
		if err := result.print(&out, format); err != nil || out.String() != want {
			t.Errorf("-o %q: %q (%v)", format, &out, err)
		}
	}
}
