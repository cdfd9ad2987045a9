package manifest

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// IsTemplate reports whether the file has {{ where the API server does not accept it: as a mapping whose key is a
// mapping, which it is without quotes, in names and labels, in data, and in the names of a SecretProviderClass.
func (f *File) IsTemplate() bool {
	for _, doc := range f.docs {
		if hasMappingAsKey(doc) {
			return true
		}
	}
	for _, o := range f.Objects {
		metadata := o.Root.Get("metadata")
		values := []Value{metadata.Get("name"), metadata.Get("namespace"), metadata.Get("generateName")}
		for _, p := range metadata.Get("labels").Pairs() {
			values = append(values, p.Value)
		}
		switch o.Kind {
		case "Secret":
			for _, p := range o.Root.Get("data").Pairs() {
				values = append(values, p.Value)
			}
		case "SecretProviderClass":
			if provider, _ := o.Root.Get("spec", "provider").Text(); provider == "secretmanager" {
				values = append(values, o.Root.Get("spec", "parameters", "secretName"))
			}
		}
		for _, v := range values {
			if text, _ := v.Text(); strings.Contains(text, "{{") {
				return true
			}
		}
	}
	return false
}

func hasMappingAsKey(n *yaml.Node) bool {
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && child.Kind == yaml.MappingNode || hasMappingAsKey(child) {
			return true
		}
	}
	return false
}
