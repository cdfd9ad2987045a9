package manifest

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// Object is a Kubernetes object in a file.
type Object struct {
	APIVersion, Kind string
	Node             *yaml.Node // its mapping
}

// Objects returns the objects of a manifest in their order, including those of lists. The
// error contains no values.
func Objects(source []byte) (all []Object, err error) {
	docs, err := documents(source)
	for _, doc := range docs {
		for _, n := range doc.Content {
			eachObject(n, false, func(o Object) { all = append(all, o) })
		}
	}
	return all, err
}

// eachObject calls found for an object, or for each object of a list. The items of a
// SecretList need no kind.
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
