package manifest

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// Object is a Kubernetes object in a file.
type Object struct {
	APIVersion, Kind string
	Node             *yaml.Node // the mapping that it is
}

// Objects returns the objects of a manifest in their order, in lists or not. The
// error says why it cannot be read, and repeats no values.
func Objects(source []byte) (all []Object, err error) {
	docs, err := documents(source)
	for _, doc := range docs {
		for _, n := range doc.Content {
			eachObject(n, false, func(o Object) { all = append(all, o) })
		}
	}
	return all, err
}

// eachObject calls found for an object, or for those of a list. The items of a
// SecretList need not say what they are.
func eachObject(n *yaml.Node, inSecretList bool, found func(Object)) {
	if n.Kind != yaml.MappingNode {
		return
	}
	o := Object{text(child(n, "apiVersion")), text(child(n, "kind")), n}
	if items := child(n, "items"); strings.HasSuffix(o.Kind, "List") && items != nil && items.Kind == yaml.SequenceNode {
		for _, item := range items.Content {
			eachObject(item, o.Kind == "SecretList", found)
		}
		return
	}
	if o.Kind == "" && inSecretList {
		o.APIVersion, o.Kind = "v1", "Secret"
	}
	found(o)
}
