package lint

import (
	"bytes"
	"io"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/lint"
)

// result has the findings. Its JSON is stable, as that of lint.Finding.
type result struct {
	Findings []lint.Finding `json:"findings"`
	Errors   int            `json:"errors"`
	Warnings int            `json:"warnings"`
	Files    int            `json:"files"`    // that were read
	Skipped  int            `json:"skipped"`  // templates
	Excluded int            `json:"excluded"` // files and directories
	lint.Counts
}

func (r *result) count() {
	for _, f := range r.Findings {
		if f.Severity == lint.Error {
			r.Errors++
		} else {
			r.Warnings++
		}
	}
}

func (r *result) print(out io.Writer, format string) error {
	if r.Findings == nil {
		r.Findings = []lint.Finding{}
	}
	var text bytes.Buffer
	switch format {
	case "json":
		if err := cli.WriteJSON(&text, r); err != nil {
			return err
		}
	case "github":
		for _, f := range r.Findings {
			display.Fprintf(&text, "::%s file=%s,line=%d,title=%s::%s\n", f.Severity, githubProperty(f.File), f.Line,
				githubProperty("secretmanager lint: "+f.Rule), githubData(f.Message))
		}
	default:
		for _, f := range r.Findings {
			display.Fprintf(&text, "%s:%d: %s: %s (%s)\n", f.File, f.Line, f.Severity, f.Message, f.Rule)
		}
	}
	_, err := text.WriteTo(out)
	return err
}

// githubData escapes the message of a workflow command of GitHub Actions, and githubProperty a
// property, as packages/core/src/command.ts of actions/toolkit does.
func githubData(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func githubProperty(s string) string {
	return strings.NewReplacer(":", "%3A", ",", "%2C").Replace(githubData(s))
}
