package lint

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// File has the objects of a manifest that lint checks.
type File struct {
	name           string    // as the user wrote it
	secrets        []*secret // of ciphertext
	plain          []*secret
	classes        []*classObject
	otherClasses   []*object // of other providers
	volumes        []*volume
	accounts       []*object
	kustomizations []*kustomization
	findings       []Finding // found by Read

	patch           bool // of a kustomization
	mentionsVolumes bool // or classes
}

// Counts are numbers of objects that are checked.
type Counts struct {
	Secrets int `json:"secrets"` // of ciphertext
	Classes int `json:"classes"`
	Volumes int `json:"volumes"` // of the Secrets Store CSI driver, in pods and pod templates
}

// Count returns how many objects of the files are checked.
func Count(files []*File) (c Counts) {
	for _, f := range files {
		c.Secrets += len(f.secrets)
		c.Classes += len(f.classes)
		c.Volumes += len(f.volumes)
	}
	return c
}

// Read reads the objects of a manifest.
func Read(name string, m *manifest.File) *File {
	f := &File{name: name}
	for _, s := range m.Secrets {
		o := &secret{object: object{file: f, Object: s.Object}, parsed: s}
		f.secrets = append(f.secrets, o)
		f.findings = append(f.findings, o.problems(s.Problems)...)
	}
	for _, s := range m.Plain {
		f.plain = append(f.plain, &secret{object: object{file: f, Object: s.Object}, parsed: s})
	}
	for _, o := range m.Objects {
		f.readVolumes(o)
		api, _, _ := strings.Cut(o.APIVersion, "/")
		switch {
		case o.Kind == "SecretProviderClass" && api == "secrets-store.csi.x-k8s.io":
			f.readClass(o)
		case o.Kind == "Kustomization" && api == "kustomize.config.k8s.io", o.Kind == "" && isKustomization(name):
			f.readKustomization(o)
		case o.Kind == "Kustomization" && api == "kustomize.toolkit.fluxcd.io":
			f.readFlux(o)
		case o.Kind == "Application" && api == "argoproj.io":
			f.readArgo(o)
		case o.Kind == "ServiceAccount" && o.APIVersion == "v1":
			f.accounts = append(f.accounts, &object{file: f, Object: o})
		}
	}
	f.findings = append(f.findings, f.checkUnassigned(m)...)
	m.Texts(func(t manifest.Text) { f.mentionsVolumes = f.mentionsVolumes || mentionsVolumes(t.Value) })
	return f
}

func isKustomization(name string) bool {
	base := filepath.Base(name)
	return strings.TrimSuffix(base, filepath.Ext(base)) == "kustomization"
}

// object is an object in a manifest.
type object struct {
	file *File
	*manifest.Object
	namespaces []string // that kustomizations move it to
	renamed    bool     // by a kustomization
	patched    bool     // a kustomization may change its volumes or parameters
}

// mayBeNamed reports whether the object may have a name when it is applied.
func (o *object) mayBeNamed(name string) bool {
	return name == o.Name || o.renamed && strings.Contains(name, o.Name)
}

// targetNamespace returns the namespace that the object is applied to; empty if unknown.
func (o *object) targetNamespace(options Options) string {
	if len(o.namespaces) > 0 {
		return "" // kustomizations determine it
	}
	return cmp.Or(o.Namespace, options.Namespace)
}

// finding returns a finding of the object, or of an entry.
func (o *object) finding(r Rule, line int, entry, format string, args ...any) Finding {
	prefix := o.String() + ": "
	if entry != "" {
		prefix += fmt.Sprintf("entry %s: ", quote(entry))
	}
	return Finding{
		File: o.file.name, Line: line, Severity: r.Severity, Rule: r.Name,
		Kind: o.Kind, Namespace: display.Name(o.Namespace), Name: display.Name(o.Name), Entry: display.Name(entry),
		Message: display.Line(prefix + fmt.Sprintf(format, args...)),
	}
}

// problemRules are the rules for what the reader has found.
var problemRules = map[manifest.ProblemKind]Rule{
	manifest.InvalidObject: ruleObject,
	manifest.Duplicate:     ruleDuplicate,
	manifest.Empty:         ruleEmpty,
	manifest.Plaintext:     rulePlaintext,
	manifest.NotBase64:     ruleNotBase64,
	manifest.DoubleBase64:  ruleDoubleBase64,
	manifest.Malformed:     ruleMalformed,
}

// problems returns the findings for what the reader has found.
func (o *object) problems(problems []manifest.Problem) (findings []Finding) {
	for _, p := range problems {
		findings = append(findings, o.finding(problemRules[p.Kind], p.Line, p.Entry, "%s", p.Message))
	}
	return findings
}

// location returns the name of the object with its file and line.
func (o *object) location() string {
	return fmt.Sprintf("%s (%s:%d)", display.Name(o.Name), display.Name(o.file.name), o.Line)
}

// quote puts a name in quotes.
func quote(s string) string { return `"` + display.Name(s) + `"` }
