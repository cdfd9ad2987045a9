package lint

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// pair is a key of a mapping with its value.
type pair struct {
	name       string
	key, value *yaml.Node
}

// pairs returns the keys and values of a mapping, with those merged into it, as kubectl reads it; nil
// if the node is not a mapping. It keeps duplicate keys.
func pairs(n *yaml.Node) (all []pair) {
	seen := map[*yaml.Node]bool{} // each mapping is merged once
	known := map[string]bool{}
	var add func(n *yaml.Node, merged bool)
	add = func(n *yaml.Node, merged bool) {
		if n = resolve(n); n == nil || n.Kind != yaml.MappingNode || seen[n] {
			return
		}
		seen[n] = true
		var merges []*yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if key.Tag == "!!merge" {
				merges = append(merges, value)
				continue
			}
			name := ""
			if k := resolve(key); k.Kind == yaml.ScalarNode {
				name = k.Value
			}
			if merged && known[name] {
				continue
			}
			known[name] = true
			all = append(all, pair{name, key, value})
		}
		for _, m := range merges {
			if m = resolve(m); m.Kind == yaml.SequenceNode {
				for _, n := range m.Content {
					add(n, true)
				}
				continue
			}
			add(m, true)
		}
	}
	add(n, false)
	return all
}

// repeated returns the pairs whose key occurs earlier.
func repeated(all []pair) (later []pair) {
	seen := map[string]bool{}
	for _, p := range all {
		if seen[p.name] {
			later = append(later, p)
		}
		seen[p.name] = true
	}
	return later
}

// get returns the value of a key; nil if it is missing.
func get(all []pair, name string) *yaml.Node {
	i := slices.IndexFunc(all, func(p pair) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	return all[i].value
}

func resolve(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// text returns the value of a string. It is empty for a missing node and for null; a number or a
// boolean is not a string.
func text(n *yaml.Node) (s string, ok bool) {
	n = resolve(n)
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

func list(n *yaml.Node) []*yaml.Node {
	if n = resolve(n); n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	return n.Content
}
