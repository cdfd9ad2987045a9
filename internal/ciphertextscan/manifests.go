package ciphertextscan

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/document"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// maxNodes bounds the values of all manifests in a value of a Secret.
const maxNodes = 4 * document.MaxNodes

// errTooLarge means that a manifest is not parsed.
var errTooLarge = errors.New("it has manifests with too many values or levels, whose locations were not read")

// described is a Secret in a manifest.
type described struct {
	namespace, name string
	data            map[string]string
	stringData      map[string]string
	annotations     map[string]string
}

// manifests adds the locations that the manifests in a value describe, and the texts in their values.
func (f *finder) manifests(value []byte, depth int) {
	for _, doc := range documents(value) {
		if !bytes.Contains(doc, []byte("Secret")) || !bytes.Contains(doc, []byte("metadata")) {
			continue
		}
		secrets, err := f.parse(doc)
		if err != nil {
			f.problem = err
		}
		for _, s := range secrets {
			if s.namespace == "" {
				s.namespace = f.namespace
			}
			f.described(s, depth)
		}
	}
}

// described adds the texts and locations of a Secret in a manifest.
func (f *finder) described(s described, depth int) {
	for _, entry := range slices.Sorted(maps.Keys(s.data)) {
		value := []byte(s.data[entry])
		if decoded := decodeWhole(value); decoded != nil {
			value = decoded
		}
		f.entry(value, s.namespace, &Location{s.namespace, s.name, entry}, depth)
	}
	for _, entry := range slices.Sorted(maps.Keys(s.stringData)) {
		f.entry([]byte(s.stringData[entry]), s.namespace, &Location{s.namespace, s.name, entry}, depth)
	}
	for _, name := range slices.Sorted(maps.Keys(s.annotations)) {
		f.entry([]byte(s.annotations[name]), s.namespace, nil, depth)
	}
}

// entry adds the texts of a value in a manifest, with its location unless that is nil.
func (f *finder) entry(value []byte, namespace string, at *Location, depth int) {
	inner := finder{search: f.search, namespace: namespace, nodes: f.nodes, texts: map[string]*found{}}
	inner.scan(value, depth+1)
	for text, t := range inner.texts {
		outer := f.text(text, t.version)
		if at != nil && at.valid() {
			outer.at(*at)
		}
		outer.at(t.locations...)
	}
	if inner.problem != nil {
		f.problem = inner.problem
	}
}

// valid reports whether a location may exist.
func (l Location) valid() bool {
	return len(l.Namespace) <= 63 && l.Name != "" && len(l.Name) <= 253 && l.Entry != "" && len(l.Entry) <= 253 &&
		!strings.Contains(l.Namespace+l.Name+l.Entry, "/")
}

// documents splits YAML at the lines that begin a document.
func documents(value []byte) (docs [][]byte) {
	for {
		i := bytes.Index(value, []byte("\n---"))
		if i < 0 {
			return append(docs, value)
		}
		docs, value = append(docs, value[:i+1]), value[i+1:]
	}
}

// parse returns the Secrets of a document, none if it is no manifest. The error means that it was not
// parsed because of its size.
func (f *finder) parse(doc []byte) ([]described, error) {
	if json.Valid(doc) {
		values, depth := document.JSONSize(doc)
		if *f.nodes -= values; values > document.MaxNodes || depth > document.MaxDepth || *f.nodes < 0 {
			return nil, errTooLarge
		}
		var o object
		if json.Unmarshal(doc, &o) != nil {
			return nil, nil
		}
		return o.secrets(false), nil
	}
	nodes := document.YAMLNodes(string(doc))
	if *f.nodes -= nodes; nodes > document.MaxNodes || *f.nodes < 0 {
		return nil, errTooLarge
	}
	file, err := manifest.Parse(doc)
	if err != nil {
		return nil, nil // kubectl and Helm cannot apply it
	}
	var all []described
	for _, o := range file.Objects {
		if o.Kind == "Secret" {
			all = append(all, described{o.Namespace, o.Name, values(o.Root.Get("data")), values(o.Root.Get("stringData")),
				values(o.Root.Get("metadata", "annotations"))})
		}
	}
	return all, nil
}

// values returns the strings of a mapping.
func values(v manifest.Value) map[string]string {
	all := map[string]string{}
	for _, p := range v.Pairs() {
		if text, ok := p.Value.Text(); ok && p.Name != "" {
			all[p.Name] = text
		}
	}
	return all
}

// object is an object in JSON, or a list of objects.
type object struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Namespace   string      `json:"namespace"`
		Name        string      `json:"name"`
		Annotations stringsOnly `json:"annotations"`
	} `json:"metadata"`
	Data       stringsOnly `json:"data"`
	StringData stringsOnly `json:"stringData"`
	Items      []object    `json:"items"`
}

func (o object) secrets(inList bool) (all []described) {
	if o.Kind == "Secret" || o.Kind == "" && inList {
		all = append(all, described{o.Metadata.Namespace, o.Metadata.Name, o.Data, o.StringData, o.Metadata.Annotations})
	}
	for _, item := range o.Items {
		all = append(all, item.secrets(true)...)
	}
	return all
}

// stringsOnly are the strings of an object in JSON; other values are ignored.
type stringsOnly map[string]string

// UnmarshalJSON implements json.Unmarshaler.
func (s *stringsOnly) UnmarshalJSON(text []byte) error {
	var all map[string]json.RawMessage
	if json.Unmarshal(text, &all) != nil {
		return nil // data of another kind
	}
	*s = stringsOnly{}
	for name, raw := range all {
		var value string
		if json.Unmarshal(raw, &value) == nil {
			(*s)[name] = value
		}
	}
	return nil
}
