package manifest

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// HasTemplate reports whether the file has {{ where the API server does not accept it: as a mapping whose key is a
// mapping, which it is without quotes, in names and labels, in data, and in the names of a SecretProviderClass.
func (f *File) HasTemplate() bool {
	for _, doc := range f.docs {
		if hasMappingAsKey(doc) {
			return true
		}
	}
	for _, o := range f.Objects {
		if o.isTemplate() {
			return true
		}
	}
	return false
}

// HasSecret reports whether the file has a Secret or a class of this project that is not a template. kubectl apply
// creates it, whatever else is in the file, and only reports the objects that are refused.
func (f *File) HasSecret() bool {
	for _, doc := range f.docs {
		if hasMappingAsKey(doc) {
			continue // kubectl refuses the whole document
		}
		found := false
		for _, n := range doc.Content {
			eachObject(Value{n}, list{}, map[*yaml.Node]bool{}, func(o *Object) {
				found = found || o.isSecretOrClass() && !o.isTemplate()
			})
		}
		if found {
			return true
		}
	}
	return false
}

func (o *Object) isSecretOrClass() bool {
	if o.Kind == "SecretProviderClass" {
		provider, _ := o.Root.Get("spec", "provider").Text()
		return provider == "secretmanager"
	}
	return o.Kind == "Secret"
}

// isTemplate reports whether the object has {{ in a place that the API server checks. With a key that occurs twice, it
// depends on kubectl which value that is.
func (o *Object) isTemplate() bool {
	metadata := o.Root.Get("metadata")
	values := []Value{metadata.Get("name"), metadata.Get("namespace"), metadata.Get("generateName")}
	pairs := metadata.Get("labels").Pairs()
	duplicates := len(o.Problems) + len(Duplicates(pairs))
	switch {
	case o.Kind == "Secret":
		data := o.Root.Get("data").Pairs()
		duplicates += len(Duplicates(data))
		pairs = append(pairs, data...)
	case o.isSecretOrClass():
		values = append(values, o.Root.Get("spec", "parameters", "secretName"))
	}
	for _, p := range pairs {
		values = append(values, p.Value)
	}
	for _, v := range values {
		if text, _ := v.Text(); strings.Contains(text, "{{") {
			return duplicates == 0
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
