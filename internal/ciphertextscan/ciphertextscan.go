// Package ciphertextscan finds transit ciphertext anywhere in a Secret, whatever its labels
// say: in data and annotations, as it is, in base64 once or twice, with JSON's escapes, and
// in Helm releases. Copies of old ciphertext have such forms: those in the annotation of
// kubectl apply, in a Helm release, or in a manifest that a Secret stores. For a text in a
// manifest it also finds the location that the manifest describes.
//
// The package sends no requests and does not know whether a text decrypts. It finds
// ciphertext in base64 that is wrapped in lines or has the URL-safe alphabet only if that is
// a whole value, of the Secret or of a manifest in it. It finds none in base64 that is encoded
// more than three times, in compressed data other than a Helm release, or that is broken into
// lines itself.
package ciphertextscan

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// A Text is transit ciphertext in a Secret. It has at least 28 bytes after the version.
type Text struct {
	Version    int
	Ciphertext string // never print it
	Annotation bool   // in an annotation, not in data
	Name       string // of the annotation or of the entry
	InRelease  bool   // in a Helm release
	// Locations are those that manifests in the value describe, at most eight.
	Locations []Location
}

// A Location is an entry of a Secret.
type Location struct{ Namespace, Name, Entry string }

// maxDepth bounds how often a text is decoded, so that no author can make a scan slow.
const maxDepth = 3

// Search is what is searched for. The zero Search finds all texts, without their Locations.
type Search struct {
	Wanted    func(version int) bool // nil: all versions
	Locations bool
	// Releases is how many bytes of Helm releases may still be decompressed. Each Secret reduces it. If it
	// is nil, only the length of each release is limited.
	Releases *int
}

func (q Search) wants(version int) bool { return q.Wanted == nil || q.Wanted(version) }

// Secret calls visit for every transit ciphertext in the data and annotations of a Secret.
func Secret(s *corev1.Secret, visit func(Text)) error { return Search{}.Secret(s, visit) }

// Secret calls visit for every text in the data and annotations of a Secret, once for each text
// in each value. In a Helm release it does so once for each manifest. The order depends on nothing
// but the Secret. The error names the values that could not be searched completely, and not their
// content.
func (q Search) Secret(s *corev1.Secret, visit func(Text)) error {
	var errs []error
	nodes := maxNodes
	each := func(value []byte, at Text) {
		f := finder{search: q, namespace: s.Namespace, texts: map[string]*found{}, nodes: &nodes}
		f.scan(value, 0)
		for _, text := range slices.Sorted(maps.Keys(f.texts)) {
			at.Ciphertext, at.Version, at.Locations = text, f.texts[text].version, f.texts[text].locations
			visit(at)
		}
		if f.problem != nil {
			errs = append(errs, fmt.Errorf("%s: %w", at.value(), f.problem))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Data)) {
		each(s.Data[name], Text{Name: name})
		if s.Type != helmRelease {
			continue
		}
		at := Text{Name: name, InRelease: true}
		if err := q.decompress(s.Data[name], func(part []byte) { each(part, at) }); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", at.value(), err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Annotations)) {
		each([]byte(s.Annotations[name]), Text{Name: name, Annotation: true})
	}
	return errors.Join(errs[:min(len(errs), maxErrors)]...)
}

// maxErrors bounds the problems of a Secret that are named.
const maxErrors = 3

func (t Text) value() string {
	if t.Annotation {
		return fmt.Sprintf("annotation %q", t.Name)
	}
	return fmt.Sprintf("entry %q", t.Name)
}
