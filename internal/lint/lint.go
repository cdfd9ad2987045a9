// Package lint finds what is wrong with ciphertext Secrets, and with the
// SecretProviderClasses that mount them, in manifests: without a cluster, without
// Vault, and without ever repeating a value.
//
// [Read] takes a file apart, as leniently as it can. [Check] looks at all files
// together, since a class and its Secret, or a Secret and the kustomization that
// moves it, are seldom in one. Every [Finding] names the [Rule] that it is of.
//
// Nothing of a value gets into a finding: not what it decodes to, not a piece of
// it, and not what a setting says instead of what it may say. Names do.
package lint

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

// Severity says whether a finding keeps something from working.
type Severity string

const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Rule is one thing that is looked for. Names are a promise: they are in the
// output, and people filter by them.
type Rule struct {
	Name     string
	Severity Severity
	About    string
}

var (
	ruleObject       = rule("object", Error, "the API server would not take the object")
	ruleName         = rule("name", Error, "no name, or one that Kubernetes does not take")
	ruleKeyLabel     = rule("key-label", Error, "the label with the transit key is missing or not the name of one")
	ruleTransitMount = rule("transit-mount", Error, "the annotation with the transit mount is not the path of one")
	ruleScope        = rule("scope", Error, "the annotation with the scope is none there is")
	ruleNamespace    = rule("namespace", Error, "the scope binds to a namespace, and there is none (see -n)")
	ruleEmpty        = rule("empty", Error, "a Secret without entries, or an entry without a value")
	rulePlaintext    = rule("plaintext", Error, "an entry is not ciphertext")
	ruleNotBase64    = rule("not-base64", Error, "a value under data is not base64")
	ruleDoubleBase64 = rule("double-base64", Error, "ciphertext is encoded in base64 once too often")
	ruleMalformed    = rule("malformed", Error, "ciphertext is damaged")
	ruleLastApplied  = rule("last-applied", Error, "kubectl's copy of an earlier manifest holds what is not ciphertext")
	ruleDuplicate    = rule("duplicate", Error, "an entry is there twice")
	ruleSize         = rule("size", Error, "the values are more than a Secret holds")
	ruleMinVersion   = rule("min-version", Error, "an entry is below the key version asked for (see --min-version)")
	ruleVersionLabel = rule("version-label", Warning, "the label with the key version differs from the oldest entry's")
	ruleParameters   = rule("parameters", Error, "the provider would not take the parameters of a class")
	ruleClassObject  = rule("class-object", Error, "a class takes an entry that its Secret does not have")
	ruleClassDiffers = rule("class-differs", Error, "key, mount or scope of a class differ from its Secret's")
	ruleClassSecret  = rule("class-secret", Warning, "the Secret of a class is not among the files")
	ruleKustomize    = rule("kustomize", Warning, "a kustomization renames or moves what is bound to its place")
)

var rules []Rule

func rule(name string, severity Severity, about string) Rule {
	r := Rule{name, severity, about}
	rules = append(rules, r)
	return r
}

// Rules returns all rules there are.
func Rules() []Rule { return slices.Clone(rules) }

// Finding is something that is wrong. Its JSON is a promise: fields are added and
// never renamed.
type Finding struct {
	File      string   `json:"file"`
	Line      int      `json:"line"`
	Severity  Severity `json:"severity"`
	Rule      string   `json:"rule"`
	Kind      string   `json:"kind"` // of the object
	Namespace string   `json:"namespace,omitempty"`
	Name      string   `json:"name,omitempty"`
	Entry     string   `json:"entry,omitempty"`
	Message   string   `json:"message"` // with the place, on one line
}

// Options is what the files themselves do not say.
type Options struct {
	Namespace  string // of manifests without one; empty if it is not known
	MinVersion int    // that every entry has at least; 0: any
}

// Check returns what is wrong with the files, file by file and line by line.
func Check(files []*File, o Options) []Finding {
	place(files)
	order := map[string]int{}
	var all []Finding
	for i, f := range files {
		order[f.Name] = i
		all = append(all, f.findings...)
		for _, s := range f.Secrets {
			if s.Ours {
				all = append(all, s.check(o)...)
			}
		}
		for _, c := range f.classes {
			all = append(all, c.check(files, o)...)
		}
		for _, k := range f.kustomizations {
			all = append(all, k.check(files)...)
		}
	}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line))
	})
	return all
}

// object is what findings name.
type object struct {
	file            *File
	kind            string
	namespace, name string
	line            int
}

// Line is where the object begins, counted from 1.
func (o *object) Line() int { return o.line }

// String names the object.
func (o *object) String() string {
	switch {
	case o.name == "":
		return o.kind + " without a name"
	case o.namespace == "":
		return o.kind + " " + display.Name(o.name)
	}
	return o.kind + " " + display.Name(o.namespace) + "/" + display.Name(o.name)
}

// finding makes one of the object as a whole, or of an entry.
func (o *object) finding(r Rule, line int, entry, format string, args ...any) Finding {
	where := o.String() + ": "
	if entry != "" {
		where += fmt.Sprintf("entry %s: ", quote(entry))
	}
	return Finding{
		File: o.file.Name, Line: line, Severity: r.Severity, Rule: r.Name,
		Kind: o.kind, Namespace: display.Name(o.namespace), Name: display.Name(o.name), Entry: display.Name(entry),
		Message: display.Line(where + fmt.Sprintf(format, args...)),
	}
}

// quote puts a name in quotes.
func quote(s string) string { return `"` + display.Name(s) + `"` }
