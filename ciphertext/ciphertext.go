// Package ciphertext defines the format of a ciphertext Secret and what binds its
// entries to their location. It does no I/O.
//
// A ciphertext Secret is a Kubernetes Secret of type [Type]. Each value of its data,
// an entry, is one ciphertext of HashiCorp Vault's transit engine, such as
// "vault:v3:uK4s…". The number after the v is the version of the key that made it:
// this prefix alone determines which entries have to be rewrapped. Labels and
// annotations name the key ([LabelTransitKey]), the engine's mount
// ([AnnotationTransitMount]) and the [Scope].
//
// The scope prevents an author in one namespace from copying ciphertext out of
// another. The key is a derived key, and the context from which Vault derives the
// actual key is the location that the ciphertext belongs to. A ciphertext that was
// moved does not decrypt, because the reader computes the context from the location
// where it found the ciphertext.
package ciphertext

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Type is the type of a ciphertext Secret. A Secret of another type is a ciphertext
// Secret if it has [LabelTransitKey].
const Type corev1.SecretType = "secretmanager.io/ciphertext"

const (
	// Prefix begins the names of all labels and annotations, and the type. A text
	// without it is not the manifest of a ciphertext Secret.
	Prefix = "secretmanager.io/"
	// LabelTransitKey names the transit key. The rotator finds Secrets by it.
	LabelTransitKey = "secretmanager.io/transit-key"
	// LabelKeyVersion is the oldest key version among the entries. It is for people
	// (kubectl get secret -L …); no program decides by it.
	LabelKeyVersion = "secretmanager.io/key-version"
	// AnnotationTransitMount is the path of the transit engine. The default is
	// DefaultTransitMount.
	AnnotationTransitMount = "secretmanager.io/transit-mount"
	// AnnotationScope is the Scope. The default is Strict.
	AnnotationScope = "secretmanager.io/scope"

	// AnnotationRewrapped is the oldest key version among the entries when the
	// rotator last wrote the Secret. An older entry was reverted since, from a
	// manifest or a backup: neither has this annotation, and applying a manifest
	// keeps it.
	AnnotationRewrapped = "secretmanager.io/rewrapped"

	// AnnotationLastApplied is where kubectl apply keeps a copy of the manifest
	// that it applied. If that held plaintext, the annotation does too.
	AnnotationLastApplied = corev1.LastAppliedConfigAnnotation

	// DefaultTransitMount is the default path of Vault's transit engine.
	DefaultTransitMount = "transit"
)

// RotatorManager is the field manager of the rotator's writes, by which status finds
// them. The API server takes it from the user agent.
const RotatorManager = "secretmanager-rotator"

// MaxSecretSize is the limit of the API server for the sum of all values of a Secret,
// in bytes.
const MaxSecretSize = corev1.MaxSecretSize

// Settings are the key and the scope that the entries of a ciphertext Secret were
// encrypted with.
type Settings struct {
	Key   Key
	Scope Scope
}

// SettingsOf reads the settings from the labels and annotations of a Secret.
// The error names each that is missing or malformed.
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

// Apply writes the settings, the type and [LabelKeyVersion] to a Secret. Other
// labels and annotations stay. An existing type stays too, since it is immutable in
// Kubernetes.
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

// Versions returns the oldest and the newest key version among the entries. It skips
// malformed entries; ok is false if no entry is well-formed.
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

// Validate reports whether the Secret is a well-formed ciphertext Secret. The error
// joins all problems, in the order of the entries. It never contains a value: what is
// not ciphertext may be plaintext.
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
		errs = append(errs, fmt.Errorf("its values have %d bytes in total, and Kubernetes accepts %d", size, MaxSecretSize))
	}
	return errors.Join(errs...)
}

// Entries returns the sorted names of the entries.
func Entries(data map[string][]byte) []string {
	names := make([]string, 0, len(data))
	for name := range data {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// CheckPath reports whether s may be used in a Vault path, such as for a mount: at most
// 512 printable ASCII characters, no "..", "//" or slash at an end, and no character
// that would end the path.
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

// CheckName reports whether s may be the name of a key or a role: a path of one part,
// see [CheckPath].
func CheckName(s string) error {
	if strings.Contains(s, "/") {
		return fmt.Errorf("%q has a slash in it", s)
	}
	return CheckPath(s)
}
