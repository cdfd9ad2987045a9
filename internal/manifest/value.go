package manifest

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	kubectlyaml "sigs.k8s.io/yaml"
)

// Value is a field of an object, as kubectl reads it: aliases are resolved, and mappings have the keys
// that are merged into them. The zero Value is a missing field.
type Value struct{ node *yaml.Node }

// Pair is a key of a mapping with its value. Its line is that of the key.
type Pair struct {
	Name  string // empty if the key is not a scalar
	Line  int
	Value Value

	key *yaml.Node
}

// Line returns the line of the value, counted from 1; 0 if it is missing.
func (v Value) Line() int {
	if v.node == nil {
		return 0
	}
	return v.node.Line
}

// resolve returns the node, of an alias that of its anchor. It is nil for a missing field.
func (v Value) resolve() *yaml.Node {
	if v.node != nil && v.node.Kind == yaml.AliasNode {
		return v.node.Alias
	}
	return v.node
}

// Pairs returns the keys and values of a mapping; nil if it is not a mapping. It keeps duplicate keys.
func (v Value) Pairs() (all []Pair) {
	seen := map[*yaml.Node]bool{} // each mapping is merged once
	known := map[string]bool{}
	var add func(v Value, merged bool)
	add = func(v Value, merged bool) {
		n := v.resolve()
		if n == nil || n.Kind != yaml.MappingNode || seen[n] {
			return
		}
		seen[n] = true
		var merges []Value
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], Value{n.Content[i+1]}
			if key.Tag == "!!merge" {
				merges = append(merges, value)
				continue
			}
			name := ""
			if k := (Value{key}).resolve(); k.Kind == yaml.ScalarNode {
				name = keyName(k)
			}
			if merged && known[name] {
				continue
			}
			known[name] = true
			all = append(all, Pair{name, key.Line, value, key})
		}
		for _, m := range merges {
			add(m, true)
			for _, item := range m.List() {
				add(item, true)
			}
		}
	}
	add(v, false)
	return all
}

// word matches plain keys that are strings in every version of YAML, unless they are among the reserved words.
var word = regexp.MustCompile(`^[A-Za-z_/][-._/A-Za-z0-9]*$`)

// keyName returns the key as kubectl names it. kubectl reads YAML 1.1, and turns a key that is not a string into one:
// on is "true", and 0x10 is "16". A key that kubectl refuses is unchanged.
func keyName(n *yaml.Node) string {
	plain := n.Value
	switch {
	case n.Style == yaml.TaggedStyle && n.Tag != "!!str":
		plain = n.Tag + " " + n.Value
	case n.Style != 0, word.MatchString(n.Value) && !slices.Contains(reserved, strings.ToLower(n.Value)):
		return n.Value
	}
	text, err := kubectlyaml.YAMLToJSON([]byte(plain + ": 0\n"))
	if err != nil {
		return n.Value
	}
	var keys map[string]int
	if json.Unmarshal(text, &keys) != nil || len(keys) != 1 {
		return n.Value
	}
	for name := range keys {
		return name
	}
	return n.Value
}

// Get returns the value of a key, or of the key of a key and so on; the zero Value if it is missing.
func (v Value) Get(path ...string) Value {
	for _, name := range path {
		var found Value
		for _, p := range v.Pairs() {
			if p.Name == name {
				found = p.Value
				break
			}
		}
		v = found
	}
	return v
}

// Text returns the value of a string. It is empty for a missing field and for null; a number or a
// boolean is not a string.
func (v Value) Text() (s string, ok bool) {
	n := v.resolve()
	switch {
	case n == nil:
		return "", true
	case n.Kind != yaml.ScalarNode:
		return "", false
	}
	switch n.ShortTag() {
	case "!!null":
		return "", true
	case "!!int", "!!float", "!!bool", "!!binary":
		return "", false
	}
	return n.Value, true
}

// IsTrue reports whether kubectl reads the value as the boolean true, as YAML 1.1 spells it.
func (v Value) IsTrue() bool {
	n := v.resolve()
	return n != nil && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 &&
		slices.Contains([]string{"true", "yes", "on", "y"}, strings.ToLower(n.Value))
}

// List returns the items of a list; nil if it is not a list.
func (v Value) List() (items []Value) {
	n := v.resolve()
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	for _, item := range n.Content {
		items = append(items, Value{item})
	}
	return items
}

// repeated returns the pairs whose key occurs earlier.
func repeated(all []Pair) (later []Pair) {
	seen := map[string]bool{}
	for _, p := range all {
		if seen[p.Name] {
			later = append(later, p)
		}
		seen[p.Name] = true
	}
	return later
}
