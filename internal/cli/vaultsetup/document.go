package vaultsetup

import (
	"context"
	"errors"

	"github.com/secretmanager-io/secretmanager/internal/cli"
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
