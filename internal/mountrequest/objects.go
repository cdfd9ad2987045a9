package mountrequest

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// Class is a SecretProviderClass of this provider.
type Class struct {
	*manifest.Object
	Parameters map[string]string
}

// Secret is a Secret, with ciphertext or not, as the API server would store it.
type Secret struct {
	*manifest.Object
	Data map[string]string
}

// ParseClass returns the first class of a manifest.
func ParseClass(source []byte) (Class, error) {
	o, err := find(source, "SecretProviderClass", "secrets-store.csi.x-k8s.io/")
	if err != nil {
		return Class{}, err
	}
	spec := o.Root.Get("spec")
	if name, _ := spec.Get("provider").Text(); name != class.Provider {
		return Class{}, fmt.Errorf("spec.provider is %q: the driver would not call the provider secretmanager", name)
	}
	if o.Name == "" {
		return Class{}, fmt.Errorf("the SecretProviderClass has no metadata.name")
	}
	c := Class{o, map[string]string{}}
	for _, p := range spec.Get("parameters").Pairs() {
		value, ok := p.Value.Text()
		if !ok {
			return Class{}, asError(o, manifest.NotString("parameter "+p.Name, p.Value))
		}
		c.Parameters[p.Name] = value
	}
	return c, nil
}

// ParseSecret returns the first Secret of a manifest.
func ParseSecret(source []byte) (*Secret, error) {
	o, err := find(source, "Secret", "v1")
	if err != nil {
		return nil, err
	}
	s := &Secret{o, map[string]string{}}
	for _, field := range []string{"data", "stringData"} { // stringData overrides data
		for _, p := range o.Root.Get(field).Pairs() {
			text, ok := p.Value.Text()
			if !ok {
				return nil, asError(o, manifest.NotString(field+": the value of "+p.Name, p.Value))
			}
			if field == "data" {
				data, err := base64.StdEncoding.DecodeString(text)
				if err != nil { // the error may have a part of the value
					return nil, fmt.Errorf("line %d: entry %q: is not base64, as values under data must be", p.Value.Line(), p.Name)
				}
				text = string(data)
			}
			s.Data[p.Name] = text
		}
	}
	return s, nil
}

// find returns the first object of a kind. The error contains no values.
func find(source []byte, kind, apiVersion string) (*manifest.Object, error) {
	m, err := manifest.Parse(source)
	if err != nil {
		return nil, err
	}
	for _, o := range m.Objects {
		switch {
		case o.Kind != kind:
			continue
		case !strings.HasPrefix(o.APIVersion, apiVersion):
			return nil, fmt.Errorf("line %d: apiVersion is %q and not %s", o.Line, o.APIVersion, apiVersion)
		case len(o.Problems) > 0:
			return nil, asError(o, o.Problems[0])
		}
		return o, nil
	}
	return nil, fmt.Errorf("no %s found", kind)
}

func asError(o *manifest.Object, p manifest.Problem) error {
	return fmt.Errorf("line %d: %s: %s", p.Line, o, p.Message)
}
