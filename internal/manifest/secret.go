package manifest

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// Secret is a Secret in a file.
type Secret struct {
	*Object
	Meta metav1.ObjectMeta // name, namespace, labels, annotations, and kinds and names of owners
	Type corev1.SecretType
	// Immutable is set if the API server refuses every change of the entries.
	Immutable bool
	Settings  ciphertext.Settings // incomplete if the Secret has invalid ones
	Entries   []*Entry

	lines        map[string]int // of the labels and annotations
	hint         *yaml.Node     // the value of the version label, or nil without one
	data, string *yaml.Node     // the mappings; nil if there are none
	readOnly     []error        // why it can be read, and not be changed
}

// Entry is a value of a Secret.
type Entry struct {
	Name    string
	Line    int    // of its value
	Encoded bool   // in data, as base64
	Text    []byte // what the API server would store; nil if unknown

	// Problem is the reason why it is not ciphertext; nil if it is.
	Problem *Problem

	key  *yaml.Node
	node *yaml.Node
}

// Version returns the key version of the entry; 0 if it is not ciphertext.
func (e *Entry) Version() int {
	v, _ := ciphertext.Version(e.Text)
	return v
}

// LineOf returns the line of a label or annotation; or of the Secret if it has no such key.
func (s *Secret) LineOf(name string) int {
	if line, ok := s.lines[name]; ok {
		return line
	}
	return s.Line
}

// CheckMutable returns an error if the Secret is immutable: a changed manifest could not be applied.
func (s *Secret) CheckMutable() error {
	if !s.Immutable {
		return nil
	}
	return fmt.Errorf(
		"line %d: %s is immutable, and the API server would refuse the changed manifest: delete the Secret in "+
			"the cluster and remove immutable from the manifest, or encrypt the values in a Secret of another name",
		s.Line,
		s,
	)
}

// BindsNamespace reports whether the ciphertext is bound to the namespace of the Secret.
func (s *Secret) BindsNamespace() bool {
	return s.Settings.Scope == ciphertext.Strict || s.Settings.Scope == ciphertext.Namespace
}

// AsStored returns the Secret as the API server would store it.
func (s *Secret) AsStored() *corev1.Secret {
	stored := &corev1.Secret{ObjectMeta: *s.Meta.DeepCopy(), Type: s.Type, Data: map[string][]byte{}}
	for _, e := range s.Entries { // stringData comes last and overrides data
		stored.Data[e.Name] = e.Text
	}
	return stored
}

// newSecret reads a Secret. It is one of ciphertext by its type, or by any label or annotation with our
// prefix.
func newSecret(o *Object) (s *Secret, isCiphertext bool) {
	s = &Secret{Object: o, lines: map[string]int{}}
	metadata := o.Root.Get("metadata")
	s.Type = corev1.SecretType(s.text("type", o.Root.Get("type")))
	s.Immutable = o.Root.Get("immutable").IsTrue()
	s.Meta.Name, s.Meta.Namespace = o.Name, o.Namespace
	s.Meta.GenerateName, _ = metadata.Get("generateName").Text()
	s.Meta.Labels = s.stringMap("labels", metadata.Get("labels"))
	s.Meta.Annotations = s.stringMap("annotations", metadata.Get("annotations"))
	for _, owner := range metadata.Get("ownerReferences").List() {
		var o metav1.OwnerReference
		o.Kind, _ = owner.Get("kind").Text()
		o.Name, _ = owner.Get("name").Text()
		s.Meta.OwnerReferences = append(s.Meta.OwnerReferences, o)
	}
	isCiphertext = s.Type == ciphertext.Type
	for name := range s.lines {
		isCiphertext = isCiphertext || strings.HasPrefix(name, ciphertext.Prefix)
	}
	s.data = s.values("data")
	s.string = s.values("stringData")
	if !isCiphertext {
		return s, false
	}
	var err error
	if s.Settings, err = ciphertext.SettingsOf(&corev1.Secret{ObjectMeta: s.Meta}); err != nil {
		s.readOnly = append(s.readOnly, fmt.Errorf("line %d: %s: %w", s.Line, s, err))
	}
	s.hint = child(child(child(o.Root.node, "metadata"), "labels"), ciphertext.LabelKeyVersion)
	return s, true
}

// stringMap reads labels or annotations. It leaves out values that are not strings.
func (s *Secret) stringMap(field string, v Value) map[string]string {
	all := v.Pairs()
	s.Problems = append(s.Problems, Duplicates(all)...)
	values := make(map[string]string, len(all))
	for _, p := range all {
		value, ok := p.Value.Text()
		if !ok {
			s.Problems = append(s.Problems, NotString(field+": the value of "+display.Name(p.Name), p.Value))
		} else if _, found := values[p.Name]; !found {
			values[p.Name] = value
		}
		s.lines[p.Name] = p.Value.Line()
	}
	return values
}

// values reads the entries of data or stringData, and returns their mapping.
func (s *Secret) values(field string) *yaml.Node {
	v := s.Root.Get(field)
	if text, ok := v.Text(); ok && text == "" {
		return nil // missing
	}
	if v.resolve().Kind != yaml.MappingNode {
		s.problem(v.Line(), "%s is not a mapping of entries", field)
		return nil
	}
	if v.node.Kind != yaml.MappingNode || child(s.Root.node, field) != v.node {
		s.readOnly = append(s.readOnly,
			fmt.Errorf("line %d: %s: %s is not a plain mapping: write its entries out", v.Line(), s, field))
	}
	all := v.Pairs()
	for _, p := range repeated(all) {
		s.Problems = append(s.Problems,
			Problem{Kind: Duplicate, Line: p.Line, Entry: p.Name, Message: "is duplicated in " + field})
	}
	for _, p := range all {
		if k := (Value{p.key}).resolve(); k.Kind != yaml.ScalarNode {
			s.problem(p.Line, "%s has a key that is not a name", field)
			continue
		}
		e := &Entry{Name: p.Name, Line: p.Value.Line(), Encoded: field == "data", key: p.key, node: p.Value.node}
		e.read(p.Value)
		s.Entries = append(s.Entries, e)
	}
	for i := 0; i+1 < len(v.resolve().Content); i += 2 {
		if key := v.resolve().Content[i]; key.Tag == "!!merge" || key.Kind == yaml.AliasNode {
			s.readOnly = append(s.readOnly,
				fmt.Errorf("line %d: %s: %s has a key that is not a plain name: write its entries out", key.Line, s, field))
		}
	}
	return v.node
}

// read determines what the API server would store, and whether that is ciphertext.
func (e *Entry) read(v Value) {
	value, ok := v.Text()
	if !ok {
		e.fail(InvalidObject, "its value is not a string in YAML: it is not ciphertext, and the API server would "+
			"not accept it")
		return
	}
	decoded, err := e.decode(value)
	switch _, versionErr := ciphertext.Version([]byte(strings.TrimSpace(value))); {
	case err == nil:
		e.checkStored(decoded)
	case versionErr == nil:
		e.fail(NotBase64,
			"is not base64, as values under data must be: ciphertext that is not encoded belongs under stringData")
	default:
		e.fail(NotBase64, "is not base64, as values under data must be; nor is it ciphertext, so it may be plaintext: "+
			"encrypt it, and change a secret that others may have read")
	}
}

func (e *Entry) fail(kind ProblemKind, message string) {
	e.Problem = &Problem{Kind: kind, Line: e.Line, Entry: e.Name, Message: message}
}

// checkStored checks what the API server would store.
func (e *Entry) checkStored(stored []byte) {
	e.Text = stored
	_, err := ciphertext.Version(stored)
	if err == nil {
		return
	}
	trimmed := bytes.TrimSpace(stored)
	if _, err := ciphertext.Version(trimmed); err == nil {
		e.fail(Malformed, "has white space around the ciphertext, such as the line feed of a block or of echo without -n")
		return
	}
	switch inner, innerErr := base64.StdEncoding.DecodeString(string(trimmed)); {
	case len(trimmed) == 0:
		e.fail(Empty, "is empty or only white space")
	case innerErr == nil && isCiphertext(inner) && e.Encoded:
		e.fail(DoubleBase64, "is encoded in base64 twice: encode it once under data, and not at all under stringData")
	case innerErr == nil && isCiphertext(inner):
		e.fail(DoubleBase64, "is encoded in base64, as under data: under stringData, write ciphertext as it is")
	case isCiphertext(trimmed):
		e.fail(Malformed, err.Error()+": encrypt the value again, or copy the manifest from its source")
	default:
		e.fail(Plaintext, "is not ciphertext, so it may be plaintext: encrypt it, and change a secret that others "+
			"may have read")
	}
}

// isCiphertext reports whether a text looks like ciphertext, well-formed or not.
func isCiphertext(b []byte) bool {
	_, err := ciphertext.Version(bytes.TrimSpace(b))
	return err == nil || bytes.HasPrefix(bytes.TrimSpace(b), []byte("vault:v"))
}

// decode returns the bytes of a value, as the API server does.
func (e *Entry) decode(text string) ([]byte, error) {
	if !e.Encoded {
		return []byte(text), nil
	}
	return base64.StdEncoding.DecodeString(text)
}

// encode is the inverse of decode.
func (e *Entry) encode(ciphertext []byte) string {
	if !e.Encoded {
		return string(ciphertext)
	}
	return base64.StdEncoding.EncodeToString(ciphertext)
}
