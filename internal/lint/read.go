package lint

import (
	"bytes"
	"encoding/base64"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// File is a manifest.
type File struct {
	Name    string    // as the user wrote it
	Secrets []*Secret // in order

	classes        []*classObject
	kustomizations []*kustomization
	findings       []Finding // found by Read
}

// Counts returns how many ciphertext Secrets and classes are in the file.
func (f *File) Counts() (secrets, classes int) {
	for _, s := range f.Secrets {
		if s.Ours {
			secrets++
		}
	}
	return secrets, len(f.classes)
}

// Secret is a Secret in a file, with ciphertext or not.
type Secret struct {
	object
	// Ours reports whether it is a ciphertext Secret by its type, or by any label or annotation with
	// our prefix.
	Ours    bool
	Meta    corev1.Secret // type and metadata
	Entries []*Entry

	generateName string
	namespaces   []string       // that kustomizations move it to
	lines        map[string]int // of the labels and annotations
}

// Entry is a value of a Secret.
type Entry struct {
	Name string
	Line int
	Text []byte // what the API server would store; nil if unknown

	rule    *Rule // the rule that it breaks; nil if it is ciphertext
	problem string
}

// Problem returns why the entry is not ciphertext, to follow "entry NAME: "; empty if it is.
func (e *Entry) Problem() string { return e.problem }

func (e *Entry) setProblem(r Rule, problem string) { e.rule, e.problem = &r, problem }

// Read parses a manifest. It fails if the file is not YAML or JSON.
func Read(name string, source []byte) (*File, error) {
	objects, err := manifest.Objects(source)
	if err != nil {
		return nil, err
	}
	f := &File{Name: name}
	for _, o := range objects {
		api, _, _ := strings.Cut(o.APIVersion, "/")
		switch {
		case o.Kind == "Secret" && o.APIVersion == "v1":
			f.secret(o.Node)
		case o.Kind == "SecretProviderClass" && api == "secrets-store.csi.x-k8s.io":
			f.class(o.Node)
		case o.Kind == "Kustomization" && api == "kustomize.config.k8s.io", o.Kind == "" && isKustomization(name):
			f.kustomization(o.Node)
		}
	}
	return f, nil
}

func isKustomization(name string) bool {
	base := filepath.Base(name)
	return strings.TrimSuffix(base, filepath.Ext(base)) == "kustomization"
}

func (f *File) secret(n *yaml.Node) {
	s := &Secret{object: object{file: f, kind: "Secret", line: n.Line}, lines: map[string]int{}}
	root := pairs(n)
	metadata := pairs(get(root, "metadata"))
	var findings []Finding
	findings = append(findings, s.head(metadata)...)
	findings = append(findings, s.duplicates(root)...)
	secretType, ok := text(get(root, "type"))
	if !ok {
		findings = append(findings, s.notString(get(root, "type"), "type"))
	}
	s.Meta.Type = corev1.SecretType(secretType)
	s.generateName, _ = text(get(metadata, "generateName"))
	var more []Finding
	s.Meta.Labels, more = s.stringMap("labels", get(metadata, "labels"))
	findings = append(findings, more...)
	s.Meta.Annotations, more = s.stringMap("annotations", get(metadata, "annotations"))
	findings = append(findings, more...)
	s.Meta.Name, s.Meta.Namespace = s.name, s.namespace
	s.Ours = s.Meta.Type == ciphertext.Type
	for name := range s.lines {
		s.Ours = s.Ours || strings.HasPrefix(name, ciphertext.Prefix)
	}
	f.Secrets = append(f.Secrets, s)
	if !s.Ours {
		return
	}
	for _, field := range []string{"data", "stringData"} {
		findings = append(findings, s.values(field, get(root, field))...)
	}
	f.findings = append(f.findings, findings...)
}

// head reads name and namespace.
func (o *object) head(metadata []pair) (findings []Finding) {
	var ok bool
	if o.name, ok = text(get(metadata, "name")); !ok {
		findings = append(findings, o.notString(get(metadata, "name"), "metadata.name"))
	}
	if o.namespace, ok = text(get(metadata, "namespace")); !ok {
		findings = append(findings, o.notString(get(metadata, "namespace"), "metadata.namespace"))
	}
	return append(findings, o.duplicates(metadata)...)
}

func (o *object) notString(n *yaml.Node, what string) Finding {
	return o.finding(ruleObject, n.Line, "", "%s is not a string in YAML: write it in quotes", what)
}

func (o *object) duplicates(all []pair) (findings []Finding) {
	for _, p := range repeated(all) {
		findings = append(findings, o.finding(ruleObject, p.key.Line, "", "%s is duplicated", quote(p.name)))
	}
	return findings
}

// stringMap reads labels or annotations. It leaves out values that are not strings.
func (s *Secret) stringMap(field string, n *yaml.Node) (map[string]string, []Finding) {
	all := pairs(n)
	findings := s.duplicates(all)
	values := make(map[string]string, len(all))
	for _, p := range all {
		value, ok := text(p.value)
		if !ok {
			findings = append(findings, s.notString(p.value, field+": the value of "+display.Name(p.name)))
		} else if _, found := values[p.name]; !found {
			values[p.name] = value
		}
		s.lines[p.name] = p.value.Line
	}
	return values, findings
}

// values reads data or stringData.
func (s *Secret) values(field string, n *yaml.Node) (findings []Finding) {
	if v, ok := text(n); ok && v == "" {
		return nil // missing
	}
	all := pairs(n)
	if r := resolve(n); r.Kind != yaml.MappingNode {
		return []Finding{s.finding(ruleObject, n.Line, "", "%s is not a mapping of entries", field)}
	}
	for _, p := range repeated(all) {
		findings = append(findings, s.finding(ruleDuplicate, p.key.Line, p.name, "is duplicated in %s", field))
	}
	seen := map[string]*Entry{}
	for _, e := range s.Entries {
		seen[e.Name] = e
	}
	for _, p := range all {
		if k := resolve(p.key); k.Kind != yaml.ScalarNode {
			findings = append(findings, s.finding(ruleObject, p.key.Line, "", "%s has a key that is not a name", field))
			continue
		}
		e := &Entry{Name: p.name, Line: p.value.Line}
		e.read(p.value, field == "data")
		if other := seen[p.name]; field == "stringData" && other != nil {
			findings = append(findings,
				s.finding(ruleDuplicate, p.key.Line, p.name,
					"is also in data, on line %d: the API server uses this one", other.Line))
		}
		s.Entries = append(s.Entries, e)
	}
	return findings
}

// read determines what the API server would store, and whether that is ciphertext.
func (e *Entry) read(n *yaml.Node, encoded bool) {
	value, ok := text(n)
	switch {
	case !ok:
		e.setProblem(ruleObject, "its value is not a string in YAML: it is not ciphertext, and the API server would "+
			"not accept it")
		return
	case !encoded:
		e.checkStored([]byte(value), encoded)
		return
	}
	decoded, err := base64.StdEncoding.DecodeString(value)
	switch _, versionErr := ciphertext.Version([]byte(strings.TrimSpace(value))); {
	case err == nil:
		e.checkStored(decoded, encoded)
	case versionErr == nil:
		e.setProblem(ruleNotBase64, "is not base64, as values under data must be: ciphertext that is not encoded belongs "+
			"under stringData")
	default:
		e.setProblem(ruleNotBase64, "is not base64, as values under data must be; nor is it ciphertext, so it may be "+
			"plaintext: "+
			"encrypt it, and change a secret that others may have read")
	}
}

// checkStored checks what the API server would store.
func (e *Entry) checkStored(stored []byte, encoded bool) {
	e.Text = stored
	_, err := ciphertext.Version(stored)
	if err == nil {
		return
	}
	trimmed := bytes.TrimSpace(stored)
	if _, err := ciphertext.Version(trimmed); err == nil {
		e.setProblem(ruleMalformed, "has white space around the ciphertext, such as the line feed of a block or "+
			"of echo without -n")
		return
	}
	switch inner, innerErr := base64.StdEncoding.DecodeString(string(trimmed)); {
	case len(trimmed) == 0:
		e.setProblem(ruleEmpty, "is empty or only white space")
	case innerErr == nil && isCiphertext(inner) && encoded:
		e.setProblem(ruleDoubleBase64,
			"is encoded in base64 twice: encode it once under data, and not at all under stringData")
	case innerErr == nil && isCiphertext(inner):
		e.setProblem(ruleDoubleBase64, "is encoded in base64, as under data: under stringData, write ciphertext as it is")
	case isCiphertext(trimmed):
		e.setProblem(ruleMalformed, err.Error()+": encrypt the value again, or copy the manifest from its source")
	default:
		e.setProblem(rulePlaintext, "is not ciphertext, so it may be plaintext: encrypt it, and change a secret that others "+
			"may have read")
	}
}

// isCiphertext reports whether a text looks like ciphertext, well-formed or not.
func isCiphertext(b []byte) bool {
	_, err := ciphertext.Version(bytes.TrimSpace(b))
	return err == nil || bytes.HasPrefix(bytes.TrimSpace(b), []byte("vault:v"))
}
