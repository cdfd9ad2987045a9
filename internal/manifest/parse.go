package manifest

import (
	"encoding/base64"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// parser collects the ciphertext Secrets of a file.
type parser struct {
	file *File
	errs []error
}

func (p *parser) fail(n *yaml.Node, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("line %d: %w", n.Line, fmt.Errorf(format, args...)))
}

func (p *parser) secret(n *yaml.Node) {
	// Decode resolves aliases and merge keys, as kubectl does.
	var head struct {
		Type     string `yaml:"type"`
		Metadata struct {
			Name        string            `yaml:"name"`
			Namespace   string            `yaml:"namespace"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"metadata"`
	}
	if err := n.Decode(&head); err != nil {
		// The error of the decoder may contain a value.
		p.fail(n, "invalid Secret: check its type and metadata, and that it has no duplicate keys")
		return
	}
	meta := corev1.Secret{Type: corev1.SecretType(head.Type)}
	meta.Labels, meta.Annotations = head.Metadata.Labels, head.Metadata.Annotations
	s := &Secret{Namespace: head.Metadata.Namespace, Name: head.Metadata.Name, Line: n.Line}
	if meta.Type != ciphertext.Type && meta.Labels[ciphertext.LabelTransitKey] == "" {
		p.file.Plain = append(p.file.Plain, s)
		return
	}
	if s.Name == "" {
		p.fail(n, "a ciphertext Secret without a name")
		return
	}
	var err error
	if s.Settings, err = ciphertext.SettingsOf(&meta); err != nil {
		p.fail(n, "%s: %w", describe(s), err)
	}
	s.data = p.values(s, n, "data", true)
	s.string = p.values(s, n, "stringData", false)
	if metadata := child(n, "metadata"); metadata != nil {
		if labels := child(metadata, "labels"); labels != nil {
			s.hint = child(labels, ciphertext.LabelKeyVersion)
		}
	}
	p.file.Secrets = append(p.file.Secrets, s)
}

// values reads the entries of data or stringData, and returns their mapping.
func (p *parser) values(s *Secret, n *yaml.Node, field string, encoded bool) *yaml.Node {
	values := child(n, field)
	if values == nil || (values.Kind == yaml.ScalarNode && values.Tag == "!!null") {
		return nil
	}
	if values.Kind != yaml.MappingNode {
		p.fail(values, "%s: %s is not a plain mapping: write its entries out", describe(s), field)
		return nil
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(values.Content); i += 2 {
		key, value := values.Content[i], values.Content[i+1]
		name := key.Value
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge":
			p.fail(key, "%s: %s has a key that is not a plain name: write its entries out", describe(s), field)
			continue
		case seen[name]:
			p.fail(key, "%s: duplicate entry %q in %s", describe(s), name, field)
			continue
		}
		seen[name] = true
		e, err := entry(name, value, encoded)
		if err != nil {
			p.fail(value, "%s: entry %q: %w", describe(s), name, err)
			continue
		}
		e.key = key
		s.Entries = append(s.Entries, e)
	}
	return values
}

func entry(name string, value *yaml.Node, encoded bool) (*Entry, error) {
	if value.Kind != yaml.ScalarNode {
		return nil, errors.New("its value is not a text")
	}
	e := &Entry{Name: name, Line: value.Line, node: value, encoded: encoded}
	var err error
	if e.Text, err = e.decode(value.Value); err != nil {
		return nil, err
	}
	if _, err := ciphertext.Version(e.Text); err != nil {
		return nil, err
	}
	return e, nil
}

// decode returns the bytes of a value, as the API server does.
func (e *Entry) decode(text string) ([]byte, error) {
	if !e.encoded {
		return []byte(text), nil
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("is not base64, as values under data are")
	}
	return data, nil
}

// encode is the inverse of decode.
func (e *Entry) encode(ciphertext []byte) string {
	if !e.encoded {
		return string(ciphertext)
	}
	return base64.StdEncoding.EncodeToString(ciphertext)
}

// child returns the value of a key of a mapping, or nil.
func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func text(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	return n.Value
}
