package encrypt

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/filesecret"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
	"github.com/secretmanager-io/secretmanager/internal/manifestfile"
)

// intoFile writes to a manifest.
func (o *Options) intoFile(ctx context.Context, vault *cli.EncryptingSession, spec secretmanager.Spec) error {
	f, err := manifestfile.OpenEditable(o.mergeInto)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = manifestfile.NewFile(o.mergeInto)
	}
	if err != nil {
		return err
	}
	s, err := filesecret.Find(o.Factory, f, spec.Name)
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
		if err := manifestfile.Write([]*manifestfile.File{f}, io.Discard, os.Rename); err != nil {
			return err
		}
	}
	return o.done(vault, secret, spec, did+o.mergeInto+o.dry())
}

// intoExisting writes the entries to a Secret of the file.
func (o *Options) intoExisting(ctx context.Context, vault *cli.EncryptingSession, f *manifestfile.File,
	s *manifest.Secret, spec *secretmanager.Spec) (*corev1.Secret, error) {
	existing, err := filesecret.AsStored(o.Factory, f, s)
	if err != nil {
		return nil, err
	}
	requested := spec.Settings
	fill(&requested, s.Settings)
	if requested != s.Settings {
		return nil, display.Errorf("%s: line %d: %s has key %s and scope %s: use these, or choose another name",
			f.Name, s.Line, s, s.Settings.Key, s.Settings.Scope)
	}
	spec.Namespace = existing.Namespace
	if err := o.readSecret(ctx, vault, spec); err != nil {
		return nil, err
	}
	change := secretmanager.Spec{Entries: spec.Entries, AllowEmpty: spec.AllowEmpty, Settle: spec.Settle}
	encrypted, err := secretmanager.EncryptUpdate(ctx, vault, existing, change)
	if err != nil {
		return nil, err
	}
	existing.Data = encrypted
	if err := secretmanager.Verify(ctx, vault, existing); err != nil {
		return nil, err
	}
	if f.Content, err = f.Manifest.Edit(s, encrypted, nil); err != nil {
		return nil, manifestfile.WithName(f.Name, err)
	}
	return existing, nil
}

// intoNew adds a Secret to the file.
func (o *Options) intoNew(ctx context.Context, vault *cli.EncryptingSession, f *manifestfile.File,
	spec *secretmanager.Spec) (_ *corev1.Secret, err error) {
	if spec.Settings.Key.Name == "" {
		return nil, cli.Usagef("--transit-key is required: there is no Secret %s in %s to take it from", spec.Name, f.Name)
	}
	if spec.Namespace, err = o.bindTo(spec.Settings.Scope); err != nil {
		return nil, err
	}
	if err := o.readSecret(ctx, vault, spec); err != nil {
		return nil, err
	}
	secret, err := o.encrypt(ctx, vault, *spec)
	if err != nil {
		return nil, err
	}
	var printer printers.ResourcePrinter = &printers.YAMLPrinter{}
	if f.New && f.IsJSON() {
		printer = &printers.JSONPrinter{}
	}
	var text bytes.Buffer
	if err := printer.PrintObj(secret, &text); err != nil {
		return nil, err
	}
	if f.New {
		f.Content = text.Bytes()
	} else if f.Content, err = f.Manifest.Append(text.Bytes()); err != nil {
		return nil, manifestfile.WithName(f.Name, err)
	}
	return secret, nil
}
