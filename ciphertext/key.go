package ciphertext

import (
	"errors"
	"fmt"
)

// Key names a key of a transit engine.
type Key struct {
	Mount string // path of the transit engine, without slashes at its ends
	Name  string
}

// String returns the key as Vault's paths have it, such as "transit/keys/app".
func (k Key) String() string { return k.Mount + "/keys/" + k.Name }

// Check reports whether mount and name may be used in a Vault path. The error joins all
// problems.
func (k Key) Check() error {
	var errs []error
	if err := CheckPath(k.Mount); err != nil {
		errs = append(errs, fmt.Errorf("transit mount: %w", err))
	}
	if err := CheckName(k.Name); err != nil {
		errs = append(errs, fmt.Errorf("transit key: %w", err))
	}
	return errors.Join(errs...)
}
