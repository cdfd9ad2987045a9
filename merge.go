package secretmanager

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// mergeable reports everything that keeps the sealed entries from being merged
// into the Secret that is there, and those to be removed from being removed.
func mergeable(existing, sealed *corev1.Secret, remove []string) error {
	if existing.Type != ciphertext.Type && existing.Labels[ciphertext.LabelTransitKey] == "" {
		return fmt.Errorf("%w, of type %s and without the label %s: it is not a ciphertext Secret and stays as it is: choose another name, or delete it first",
			ErrOther, existing.Type, ciphertext.LabelTransitKey)
	}
	var errs []error
	other := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrOther}, args...)...))
	}
	want, _ := ciphertext.SettingsOf(sealed) // ours, and well-formed
	if have, err := ciphertext.SettingsOf(existing); err != nil {
		other("%w: set what is missing, or choose another name", err)
	} else {
		if have.Key != want.Key || have.Mount != want.Mount {
			other("its key is %s, not %s: ask for that key, or choose another name", keyOf(have), keyOf(want))
		}
		if have.Scope != want.Scope {
			other("its scope is %s, not %s: ask for that scope, or choose another name", have.Scope, want.Scope)
		}
	}
	size := 0
	for _, entry := range ciphertext.Entries(existing.Data) {
		if _, replaced := sealed.Data[entry]; replaced || slices.Contains(remove, entry) {
			continue
		}
		size += len(existing.Data[entry])
		if _, err := ciphertext.Version(existing.Data[entry]); err != nil {
			other("its entry %q %w: encrypt that one too, or remove it", entry, err)
		}
	}
	for _, text := range sealed.Data {
		size += len(text)
	}
	if size > ciphertext.MaxSecretSize {
		errs = append(errs, fmt.Errorf("%w: with what is in the Secret already it would hold %d bytes, and Kubernetes takes %d: use a second Secret",
			ErrInvalid, size, ciphertext.MaxSecretSize))
	}
	if existing.Immutable != nil && *existing.Immutable {
		errs = append(errs, errors.New("the Secret that is there is immutable: delete it and create it again, or choose another name"))
	}
	if existing.DeletionTimestamp != nil {
		errs = append(errs, errors.New("the Secret that is there is being deleted: wait until it is gone, or see which finalizer keeps it"))
	}
	return errors.Join(errs...)
}

type patchOp struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// mergePatch is the JSON Patch that puts the sealed entries into the Secret, and
// removes others, if what it was decided on is still so: its uid, its settings, and
// the values that are replaced or removed. Testing for null is testing that there
// is nothing.
func mergePatch(existing, sealed *corev1.Secret, remove []string) ([]byte, error) {
	var ops []patchOp
	add := func(op, path string, value any) { ops = append(ops, patchOp{op, path, value}) }

	add("test", "/metadata/uid", existing.UID)
	add("test", "/metadata/labels/"+escape(ciphertext.LabelTransitKey), existing.Labels[ciphertext.LabelTransitKey])
	if len(existing.Annotations) == 0 {
		add("test", "/metadata/annotations", nil)
	} else {
		for _, name := range []string{ciphertext.AnnotationTransitMount, ciphertext.AnnotationScope} {
			add("test", "/metadata/annotations/"+escape(name), orNull(existing.Annotations, name))
		}
	}
	if len(existing.Data) == 0 {
		add("test", "/data", nil)
		add("add", "/data", sealed.Data)
	}
	merged := map[string][]byte{}
	for entry, text := range existing.Data {
		merged[entry] = text
	}
	for _, entry := range ciphertext.Entries(sealed.Data) {
		merged[entry] = sealed.Data[entry]
		if len(existing.Data) == 0 {
			continue
		}
		path := "/data/" + escape(entry)
		add("test", path, orNull(existing.Data, entry))
		add("add", path, sealed.Data[entry])
	}
	for _, entry := range remove {
		path := "/data/" + escape(entry)
		add("test", path, existing.Data[entry])
		add("remove", path, nil)
		delete(merged, entry)
	}
	if oldest, _, ok := ciphertext.Versions(merged); ok {
		add("add", "/metadata/labels/"+escape(ciphertext.LabelKeyVersion), fmt.Sprint(oldest))
	}
	if _, ok := existing.Annotations[ciphertext.AnnotationLastApplied]; ok {
		add("remove", "/metadata/annotations/"+escape(ciphertext.AnnotationLastApplied), nil)
	}
	return json.Marshal(ops)
}

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
