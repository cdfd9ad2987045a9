package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
	"github.com/secretmanager-io/secretmanager/transit"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/printers"
)

// intoFile writes to a manifest.
func (o *encrypt) intoFile(ctx context.Context, vault *transit.Session, spec secretmanager.Spec) error {
	f, err := openRewrapFile(o.mergeInto)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = newFile(o.mergeInto)
	}
	if err != nil {
		return err
	}
	s, err := o.secretIn(f, spec.Name)
	if err != nil {
		return err
	}
	var secret *corev1.Secret
	did := "merged into "
	if s == nil {
		did = "added to "
		secret, err = o.intoNew(ctx, vault, f, &spec)
	} else {
		secret, err = o.intoExisting(ctx, vault, f, s, &spec)
	}
	if err != nil {
		return err
	}
	if o.dryRun != "client" {
		if err := write([]*rewrapFile{f}, io.Discard, os.Rename); err != nil {
			return err
		}
	}
	return o.done(secret, spec, did+o.mergeInto+o.dry())
}

// newFile is a file that is to be made.
func newFile(name string) (*rewrapFile, error) {
	if _, err := os.Lstat(name); err == nil {
		return nil, display.Errorf("%s: it is a link to what is not there", name)
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	f, err := parseRewrapFile(manifestFile{name: name, path: path, mode: 0o644})
	if err != nil {
		return nil, err
	}
	f.fresh = true
	return f, nil
}

// secretIn finds a ciphertext Secret in a file, nil if there is none: by its name,
// if that is not empty, and by the namespace of -n, where it is given.
func (p *program) secretIn(f *rewrapFile, name string) (*manifest.Secret, error) {
	namespace := *p.kube.Namespace
	matches := func(s *manifest.Secret) bool {
		return (name == "" || s.Name == name) && (namespace == "" || s.Namespace == "" || s.Namespace == namespace)
	}
	var found []*manifest.Secret
	for _, s := range f.manifest.Secrets {
		if matches(s) {
			found = append(found, s)
		}
	}
	for _, s := range f.manifest.Plain {
		if name != "" && matches(s) {
			return nil, hinted(display.Errorf("%s: line %d: there is a Secret %s that is no ciphertext Secret", f.name, s.Line, s.Name),
				"choose another name, or take it out; what was in Git is in its history for good: encrypt new values")
		}
	}
	if len(found) > 1 {
		var errs []error
		for _, s := range found {
			errs = append(errs, display.Errorf("%s: line %d: Secret %s", f.name, s.Line, placeOf(s)))
		}
		return nil, usagef("it is not clear which Secret is meant: name it, and its namespace with -n:\n%w", errors.Join(errs...))
	}
	if len(found) == 0 {
		return nil, nil
	}
	return found[0], nil
}

func placeOf(s *manifest.Secret) string {
	if s.Namespace == "" {
		return display.Name(s.Name)
	}
	return display.Name(s.Namespace) + "/" + display.Name(s.Name)
}

// inPlace is a Secret of a file as one of the cluster, where it will be applied.
func (p *program) inPlace(f *rewrapFile, s *manifest.Secret) (*corev1.Secret, error) {
	namespace := s.Namespace
	if namespace == "" {
		var err error
		if namespace, err = p.offlineNamespace(); err != nil {
			return nil, err
		}
		if scope := s.Settings.Scope; namespace == "" && (scope == ciphertext.Strict || scope == ciphertext.Namespace) {
			return nil, usagef("no namespace: %s: line %d: Secret %s has none, and scope %s binds its ciphertext to one; name it with -n", f.name, s.Line, s.Name, scope)
		}
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.Name}, Data: map[string][]byte{}}
	for _, e := range s.Entries { // stringData comes last, and wins, as in the API server
		secret.Data[e.Name] = e.Text
	}
	s.Settings.Apply(secret)
	return secret, nil
}

// intoExisting puts the entries into a Secret that is in the file.
func (o *encrypt) intoExisting(ctx context.Context, vault *transit.Session, f *rewrapFile, s *manifest.Secret, spec *secretmanager.Spec) (*corev1.Secret, error) {
	was, err := o.inPlace(f, s)
	if err != nil {
		return nil, err
	}
	asked := spec.Settings
	fill(&asked, s.Settings)
	if asked != s.Settings {
		return nil, display.Errorf("%s: line %d: Secret %s is of key %s and scope %s: ask for these, or choose another name",
			f.name, s.Line, s.Name, transit.Key{Mount: s.Settings.Mount, Name: s.Settings.Key}, s.Settings.Scope)
	}
	spec.Namespace = was.Namespace
	if err := o.readSecret(ctx, vault, spec); err != nil {
		return nil, err
	}
	change := secretmanager.Change{Set: spec.Entries, AllowEmpty: spec.AllowEmpty}
	sealed, err := change.Seal(ctx, vault, was)
	if err != nil {
		return nil, err
	}
	was.Data = sealed
	if err := secretmanager.Prove(ctx, vault, was); err != nil {
		return nil, err
	}
	if f.content, err = f.manifest.Edit(s, sealed, nil); err != nil {
		return nil, inFile(f.name, err)
	}
	return was, nil
}

// intoNew adds a Secret to the file.
func (o *encrypt) intoNew(ctx context.Context, vault *transit.Session, f *rewrapFile, spec *secretmanager.Spec) (_ *corev1.Secret, err error) {
	if spec.Settings.Key == "" {
		return nil, usagef("--transit-key is missing: there is no Secret %s in %s to take it from", spec.Name, f.name)
	}
	if spec.Namespace, err = o.bindTo(spec.Settings.Scope); err != nil {
		return nil, err
	}
	if err := o.readSecret(ctx, vault, spec); err != nil {
		return nil, err
	}
	secret, err := o.seal(ctx, vault, *spec)
	if err != nil {
		return nil, err
	}
	var printer printers.ResourcePrinter = &printers.YAMLPrinter{}
	if f.fresh && filepath.Ext(f.path) == ".json" {
		printer = &printers.JSONPrinter{}
	}
	var text bytes.Buffer
	if err := printer.PrintObj(secret, &text); err != nil {
		return nil, err
	}
	if f.fresh {
		f.content = text.Bytes()
	} else if f.content, err = f.manifest.Append(text.Bytes()); err != nil {
		return nil, inFile(f.name, err)
	}
	return secret, nil
}
