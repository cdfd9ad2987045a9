// Package result is the result of a check of doctor: what was found, and the commands that fix it.
package result

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/transit"
)

// State is the outcome of a check.
type State string

// The outcomes of a check.
const (
	OK      State = "ok"
	Broken  State = "broken"
	Unknown State = "unknown" // the outcome cannot be determined, or depends on a check that is broken
)

// Check is the result of a check. Its JSON is stable: fields and names of checks are added and
// never renamed.
type Check struct {
	Name string `json:"check"`
	// Subject is "pod NAMESPACE/NAME" or "class NAMESPACE/NAME"; empty for the installation.
	Subject   string   `json:"subject,omitempty"`
	State     State    `json:"state"`
	Detail    string   `json:"detail"`
	DependsOn string   `json:"dependsOn,omitempty"` // the broken check that makes this one unknown
	Warnings  []string `json:"warnings,omitempty"`  // what works, but should be changed
	Fixes     []string `json:"fix,omitempty"`       // commands that fix it, to be run in this order
	// Alternatives are the fixes between which a person has to decide.
	Alternatives []Alternative `json:"alternatives,omitempty"`
	Inspect      []string      `json:"inspect,omitempty"` // commands that show more, and change nothing
	Advice       string        `json:"advice,omitempty"`  // what to know, or what no command can do
}

// Alternative is one of several fixes.
type Alternative struct {
	When  string   `json:"when"` // what distinguishes it from the others
	Fixes []string `json:"fix"`  // commands, to be run in this order
}

// Finding is the result of a check.
type Finding struct {
	State    State
	Detail   string
	Warnings []string
	Fix      []string
	Choices  []Alternative
	Inspect  []string
	Advice   string
	Cause    string // the check that makes this one unknown
	Blocks   bool   // an unknown result blocks the checks that need this one
}

// WithFix adds commands that fix it, to be run in this order.
func (f Finding) WithFix(commands ...string) Finding {
	f.Fix = append(f.Fix, commands...)
	return f
}

// WithChoice adds a fix of which a person decides whether it is the right one.
func (f Finding) WithChoice(when string, commands ...string) Finding {
	f.Choices = append(f.Choices, Alternative{when, commands})
	return f
}

// WithInspect adds commands that change nothing.
func (f Finding) WithInspect(commands ...string) Finding {
	f.Inspect = append(f.Inspect, commands...)
	return f
}

// WithAdvice sets what to know, or what no command can do.
func (f Finding) WithAdvice(text string) Finding {
	f.Advice = text
	return f
}

// WithWarning adds what works, but should be changed.
func (f Finding) WithWarning(text string) Finding {
	f.Warnings = append(f.Warnings, text)
	return f
}

// OKf returns the finding that a check is ok.
func OKf(format string, args ...any) Finding {
	return Finding{State: OK, Detail: fmt.Sprintf(format, args...)}
}

// Brokenf returns the finding that a check is broken.
func Brokenf(format string, args ...any) Finding {
	return Finding{State: Broken, Detail: fmt.Sprintf(format, args...)}
}

// Unknownf returns a finding without an outcome.
func Unknownf(format string, args ...any) Finding {
	return Finding{State: Unknown, Detail: fmt.Sprintf(format, args...)}
}

// RequestFailed returns the finding for a request to the cluster that failed. The right is in the
// syntax of "kubectl auth can-i", such as "get csidrivers".
func RequestFailed(right string, err error) Finding {
	switch {
	case apierrors.IsForbidden(err):
		return Unknownf("you may not %s", right).WithAdvice("ask someone with that right: kubectl auth can-i " + right)
	case errors.Is(err, context.DeadlineExceeded):
		return Unknownf("%s: the API server did not respond in time", right)
	}
	return Unknownf("%s: %s", right, OneLine(err))
}

// OneLine returns the message of an error on one line.
func OneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// VaultMessage returns the message of an error of Vault without the request, which the finding
// describes.
func VaultMessage(err error) string {
	var e *transit.Error
	if !errors.As(err, &e) {
		return OneLine(err)
	}
	short := *e
	short.Doing, short.Address, short.Tries = "", "", 0
	return strings.TrimPrefix(short.Error(), " at : ")
}

// Command joins words to a command line, quoted for a shell.
func Command(words ...string) string { return display.ShellWords(words...) }

// InNamespace returns a command for a Vault namespace.
func InNamespace(namespace string, words ...string) string {
	if namespace == "" {
		return Command(words...)
	}
	return "VAULT_NAMESPACE=" + display.ShellWord(namespace) + " " + Command(words...)
}

// MaxNamed bounds how many keys, pods or classes a finding names.
const MaxNamed = 5

// Named lists the first texts, for the end of a sentence.
func Named(texts []string) string {
	if len(texts) == 0 {
		return ""
	}
	more := ""
	if n := len(texts) - MaxNamed; n > 0 {
		texts, more = texts[:MaxNamed], fmt.Sprintf("; and %d more", n)
	}
	return "; " + Clip(strings.Join(texts, "; ")) + more
}

// Clip shortens a long text.
func Clip(s string) string {
	if r := []rune(s); len(r) > 400 {
		return string(r[:400]) + "…"
	}
	return s
}
