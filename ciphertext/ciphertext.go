// Package ciphertext knows what a ciphertext Secret looks like and what binds
// it to its place. It does no I/O and talks to nobody.
//
// A ciphertext Secret is a Kubernetes Secret of type [Type] whose every data
// value, an entry, is one text made by HashiCorp Vault's transit engine, such
// as "vault:v3:uK4s…". The number after the v is the version of the key that
// made it: that prefix, and nothing else, says what has still to be rewrapped.
// Labels and annotations name the key ([LabelTransitKey]), the engine's mount
// ([AnnotationTransitMount]) and the [Scope].
//
// The scope is what keeps an author in one namespace from copying ciphertext
// out of another: the key is a derived one, and the context from which Vault
// derives the actual key is the place that the ciphertext belongs to. Moved
// elsewhere it no longer opens, because the reader computes the context from
// where it found the ciphertext, not from what the ciphertext says of itself.
package ciphertext

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Type is the type of a ciphertext Secret. A Secret of another type with
// transit ciphertext in it may take part by its labels alone.
const Type corev1.SecretType = "secretmanager.io/ciphertext"

const (
	// Prefix is what the names of all labels and annotations begin with, and the
	// type too: a text without it is no manifest of a ciphertext Secret.
	Prefix = "secretmanager.io/"
	// LabelTransitKey names the transit key. The rotator finds Secrets by it.
	LabelTransitKey = "secretmanager.io/transit-key"
	// LabelKeyVersion is a hint for people (kubectl get secret -L …): the oldest
	// version of the key among the entries. Nothing is decided by it.
	LabelKeyVersion = "secretmanager.io/key-version"
	// AnnotationTransitMount is the path of the transit engine; without it
	// DefaultTransitMount.
	AnnotationTransitMount = "secretmanager.io/transit-mount"
	// AnnotationScope is the Scope; without it Strict.
	AnnotationScope = "secretmanager.io/scope"

	// AnnotationRewrapped is the oldest key version among the entries when the
	// rotator last wrote the Secret. An entry below it was put back since, from a
	// manifest or a backup: neither has this annotation, and to apply a manifest
	// again leaves it.
	AnnotationRewrapped = "secretmanager.io/rewrapped"

	// AnnotationLastApplied is where kubectl apply keeps a copy of the manifest
	// it applied. On a Secret that once held plaintext it still does.
	AnnotationLastApplied = corev1.LastAppliedConfigAnnotation

	// DefaultTransitMount is where Vault's transit engine is mounted unless told.
	DefaultTransitMount = "transit"
)

// MaxSecretSize is how many bytes all values of a Secret may hold together,
// enforced by the API server.
const MaxSecretSize = corev1.MaxSecretSize

// Settings is what the metadata of a ciphertext Secret says about how it was made.
type Settings struct {
	Key   Key
	Scope Scope
}

// SettingsOf reads the settings from the labels and annotations of a Secret.
// The error names every one that is missing or malformed.
func SettingsOf(s *corev1.Secret) (Settings, error) {
	var errs []error
	set := Settings{Key: Key{Mount: DefaultTransitMount, Name: s.Labels[LabelTransitKey]}, Scope: Strict}
	if set.Key.Name == "" {
		errs = append(errs, fmt.Errorf("label %s is missing: it names the transit key", LabelTransitKey))
	}
	if m, ok := s.Annotations[AnnotationTransitMount]; ok {
		set.Key.Mount = m
		if err := CheckPath(m); err != nil {
			errs = append(errs, fmt.Errorf("annotation %s: %w", AnnotationTransitMount, err))
		}
	}
	if v, ok := s.Annotations[AnnotationScope]; ok {
		scope, err := ParseScope(v)
		if err != nil {
			errs = append(errs, fmt.Errorf("annotation %s: %w", AnnotationScope, err))
		}
		set.Scope = scope
	}
	return set, errors.Join(errs...)
}

// Apply writes the settings, the type and the version hint to a Secret. Other
// labels and annotations stay. The type is set only where there is none yet,
// since Kubernetes does not let it change.
func (set Settings) Apply(s *corev1.Secret) {
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	if s.Type == "" {
		s.Type = Type
	}
	s.Labels[LabelTransitKey] = set.Key.Name
	s.Annotations[AnnotationTransitMount] = set.Key.Mount
	s.Annotations[AnnotationScope] = string(set.Scope)
	if oldest, _, ok := Versions(s.Data); ok {
		s.Labels[LabelKeyVersion] = fmt.Sprint(oldest)
	} else {
		delete(s.Labels, LabelKeyVersion)
	}
}

// Versions returns the oldest and the newest key version among the entries; ok
// is false when there is no well-formed entry at all.
func Versions(data map[string][]byte) (oldest, newest int, ok bool) {
	for _, text := range data {
		v, err := Version(text)
		if err != nil {
			continue
		}
		if !ok || v < oldest {
			oldest = v
		}
		newest, ok = max(newest, v), true
	}
	return oldest, newest, ok
}

// Validate reports everything that keeps the Secret from being a well-formed
// ciphertext Secret, joined, in the order of its entries. It never repeats a
// value: where there is no ciphertext there may be plaintext.
func Validate(s *corev1.Secret) error {
	var errs []error
	if _, err := SettingsOf(s); err != nil {
		errs = append(errs, err)
	}
	if len(s.Data) == 0 {
		errs = append(errs, errors.New("it has no entries"))
	}
	size := 0
	for _, entry := range Entries(s.Data) {
		size += len(s.Data[entry])
		if _, err := Version(s.Data[entry]); err != nil {
			errs = append(errs, fmt.Errorf("entry %q: %w", entry, err))
		}
	}
	if size > MaxSecretSize {
		errs = append(errs, fmt.Errorf("its values are %d bytes together, and Kubernetes takes %d", size, MaxSecretSize))
	}
	return errors.Join(errs...)
}

// Entries returns the names of the entries in order.
func Entries(data map[string][]byte) []string {
	names := make([]string, 0, len(data))
	for name := range data {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// CheckPath reports whether s can stand for a key or a mount in a Vault path:
// not empty, printable, no "..", "//" or slash at an end, and nothing that
// would end the path early.
func CheckPath(s string) error {
	switch {
	case s == "":
		return errors.New("it is empty")
	case len(s) > 512:
		return errors.New("it is longer than 512 characters")
	case strings.HasPrefix(s, "/"), strings.HasSuffix(s, "/"):
		return fmt.Errorf("%q begins or ends with a slash", s)
	}
	for _, r := range s {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`?#%\"`, r) {
			return fmt.Errorf("%q has a character that a Vault path cannot have", s)
		}
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("%q has an empty part, or one of dots", s)
		}
	}
	return nil
}

// CheckName reports whether s can stand for the name of a key or a role: a
// path of one part.
func CheckName(s string) error {
	if strings.Contains(s, "/") {
		return fmt.Errorf("%q has a slash in it", s)
	}
	return CheckPath(s)
}
