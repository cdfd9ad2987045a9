// Package secretpatch writes Secrets by compare-and-swap: a JSON Patch tests what it was
// decided on, and takes effect only if all of that is unchanged.
package secretpatch

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// The API server accepts JSON patches of 10,000 operations and requests of 3 MiB. A patch
// that tests and replaces more entries than that tests the resource version instead, and
// replaces the data as a whole.
const (
	maxEntries = 4_000
	maxSize    = 2_500_000 // bytes of the old and new values in base64
)

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// Patch is a JSON Patch of a Secret as it was read. It takes effect only if the Secret is
// still the same object and everything that the patch replaces is as it was read.
type Patch struct {
	old    *corev1.Secret
	create *corev1.Secret // instead of a patch
	ops    []operation
	data   map[string][]byte // as the patch leaves it
	set    []string          // entries
	remove []string
}

// New returns a patch of the Secret that changes nothing yet.
func New(old *corev1.Secret) *Patch {
	p := &Patch{old: old, data: maps.Clone(old.Data)}
	if p.data == nil {
		p.data = map[string][]byte{}
	}
	p.add("test", "/metadata/uid", old.UID)
	if len(old.Annotations) == 0 {
		// There is no map to add to. The test for null keeps what others add meanwhile.
		p.add("test", "/metadata/annotations", nil)
	}
	return p
}

// Create returns a Patch that creates the Secret. It takes effect only if there is none
// of that name.
func Create(s *corev1.Secret) *Patch { return &Patch{create: s} }

func (p *Patch) add(op, path string, value any) {
	p.ops = append(p.ops, operation{op, path, value})
}

// TestVersion makes the patch depend on the Secret as a whole.
func (p *Patch) TestVersion() { p.add("test", "/metadata/resourceVersion", p.old.ResourceVersion) }

// TestLabel makes the patch depend on the value of a label that the Secret has.
func (p *Patch) TestLabel(name string) { p.add("test", labelPath(name), p.old.Labels[name]) }

// TestAnnotation makes the patch depend on the value of an annotation, or its absence.
func (p *Patch) TestAnnotation(name string) {
	if len(p.old.Annotations) > 0 {
		p.add("test", annotationPath(name), orNull(p.old.Annotations, name))
	}
}

// SetEntries sets entries, if they are as they were read or still missing.
func (p *Patch) SetEntries(entries map[string][]byte) {
	for _, name := range ciphertext.Entries(entries) {
		p.set = append(p.set, name)
		p.data[name] = entries[name]
	}
}

// RemoveEntries removes entries, if they are as they were read.
func (p *Patch) RemoveEntries(names ...string) {
	for _, name := range names {
		p.remove = append(p.remove, name)
		delete(p.data, name)
	}
}

// SetKeyVersion sets the label that shows the oldest key version among the entries as
// the patch leaves them, and returns that version.
func (p *Patch) SetKeyVersion() string {
	oldest, _, ok := ciphertext.Versions(p.data)
	version := fmt.Sprint(oldest)
	if ok && p.old.Labels[ciphertext.LabelKeyVersion] != version {
		p.add("add", labelPath(ciphertext.LabelKeyVersion), version)
	}
	return version
}

// SetAnnotation sets an annotation.
func (p *Patch) SetAnnotation(name, value string) {
	switch {
	case p.old.Annotations[name] == value:
	case len(p.old.Annotations) == 0:
		p.add("add", "/metadata/annotations", map[string]string{name: value})
	default:
		p.add("add", annotationPath(name), value)
	}
}

// RemoveAnnotation removes an annotation if the Secret has it.
func (p *Patch) RemoveAnnotation(name string) {
	if _, ok := p.old.Annotations[name]; ok {
		p.add("remove", annotationPath(name), nil)
	}
}

// Replace replaces all labels, annotations and entries by those of the Secret, if
// nothing at all was changed since it was read. The old values are not sent.
func (p *Patch) Replace(s *corev1.Secret) {
	p.TestVersion()
	p.add("add", "/metadata/labels", s.Labels)
	p.add("add", "/metadata/annotations", s.Annotations)
	p.add("add", "/data", s.Data)
}

// MarshalJSON returns the JSON Patch.
func (p *Patch) MarshalJSON() ([]byte, error) {
	ops := slices.Clone(p.ops)
	size := 0
	for _, name := range slices.Concat(p.set, p.remove) {
		size += (len(p.old.Data[name]) + len(p.data[name])) * 4 / 3
	}
	switch {
	case len(p.set)+len(p.remove) == 0:
	case len(p.set)+len(p.remove) > maxEntries || size > maxSize:
		ops = append(ops, operation{"test", "/metadata/resourceVersion", p.old.ResourceVersion},
			operation{"add", "/data", p.data})
	case len(p.old.Data) == 0:
		ops = append(ops, operation{"test", "/data", nil}, operation{"add", "/data", p.data})
	default:
		for _, name := range p.set {
			path := "/data/" + escape(name)
			ops = append(ops, operation{"test", path, orNull(p.old.Data, name)}, operation{"add", path, p.data[name]})
		}
		for _, name := range p.remove {
			path := "/data/" + escape(name)
			ops = append(ops, operation{"test", path, p.old.Data[name]}, operation{"remove", path, nil})
		}
	}
	return json.Marshal(ops)
}

func labelPath(name string) string      { return "/metadata/labels/" + escape(name) }
func annotationPath(name string) string { return "/metadata/annotations/" + escape(name) }

// orNull returns the value of a name, or nil: testing for null is testing that there is
// no value.
func orNull[V any](m map[string]V, name string) any {
	if v, ok := m[name]; ok {
		return v
	}
	return nil
}

// escape makes a name one part of a JSON pointer.
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
