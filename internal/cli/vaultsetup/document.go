package vaultsetup

import (
	"context"
	"errors"
	"fmt"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/vaultsetup"
)

// change is a change in the output for other programs.
type change struct {
	Outcome string `json:"outcome"`
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Note    string `json:"note,omitempty"`
}

// applyAsDocument makes the changes, and prints those that are done, also after a failure.
func (o *Options) applyAsDocument(ctx context.Context, changes []vaultsetup.Change) error {
	done := []change{}
	var err error
	for _, c := range changes {
		if err = c.Apply(ctx); err != nil {
			err = cli.WithHint(err, "the changes that were printed are done; run the same command again for the rest")
			break
		}
		done = append(done, change{string(c.Outcome), c.Kind, c.Name, c.Note})
	}
	return errors.Join(o.PrintDocument(map[string]any{"changes": done, "classParameters": o.parameters(o.setup)},
		o.output), err)
}

// parameters returns the parameters that a SecretProviderClass needs.
func (o *Options) parameters(s vaultsetup.Setup) map[string]string {
	if s.App == nil {
		return nil // --rotator-only
	}
	all := map[string]string{"roleName": s.App.RoleName(), "transitKey": s.Key.Name}
	for _, p := range []struct{ name, value, standard string }{
		{"transitMount", s.Key.Mount, ciphertext.DefaultTransitMount},
		{"vaultAuthMountPath", s.AuthMount, "kubernetes"},
		{"audience", s.Audience, "vault"},
	} {
		if p.value != p.standard {
			all[p.name] = p.value
		}
	}
	return all
}

// printParameters prints the parameters that a SecretProviderClass needs.
func (o *Options) printParameters(s vaultsetup.Setup) {
	if o.document() || s.App == nil {
		return // they are in the document, or there are none
	}
	all := o.parameters(s)
	display.Fprintf(o.ErrOut, "note: parameters of the SecretProviderClass: roleName: %s, transitKey: %s",
		all["roleName"], all["transitKey"])
	for _, name := range []string{"transitMount", "vaultAuthMountPath", "audience"} {
		if value, found := all[name]; found {
			display.Fprintf(o.ErrOut, ", %s: %s", name, value)
		}
	}
	fmt.Fprintln(o.ErrOut)
}
