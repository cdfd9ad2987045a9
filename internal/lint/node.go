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

// pairs returns what a mapping says, nil if the node is none: with what is merged
// into it, as kubectl would see it. Keys that are written twice are there twice.
func pairs(n *yaml.Node) (all []pair) {
	seen := map[*yaml.Node]bool{} // a second time a mapping adds nothing
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

// twice returns the pairs whose key was there before.
func twice(all []pair) (again []pair) {
	seen := map[string]bool{}
	for _, p := range all {
		if seen[p.name] {
			again = append(again, p)
		}
		seen[p.name] = true
	}
	return again
}

// get returns the value of a key, nil if it is not there.
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

// text returns a scalar where a text is wanted. A node that is not there, and
// null, are the empty one; a number or a truth value is none.
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
