package options

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/secretmanager-io/secretmanager/transit"
)

// EnvSettle is the environment variable with the default of --settle.
const EnvSettle = "SECRETMANAGER_SETTLE"

// Settle is the settle time, for programs that choose the key version of stored ciphertext.
type Settle struct {
	// Duration is as for [transit.Session.Settle]: 0 if nothing is configured, and negative
	// for an explicit 0.
	Duration time.Duration
	getenv   func(string) string
}

// AddFlags adds --settle.
func (s *Settle) AddFlags(f *pflag.FlagSet, getenv func(string) string) {
	s.getenv = getenv
	f.Var(s, "settle", fmt.Sprintf("`age` that a key version must have before ciphertext is stored with it, so that "+
		"older backups of Vault have it (%s; default %s, or 0s if Vault keeps its data in memory)", EnvSettle,
		transit.DefaultSettle))
}

// Validate completes the value from the environment if the flag is not given.
func (s *Settle) Validate() []error {
	text := s.getenv(EnvSettle)
	if text == "" || s.Duration != 0 {
		return nil
	}
	if err := s.Set(text); err != nil {
		return []error{fmt.Errorf("%s: %w", EnvSettle, err)}
	}
	return nil
}

// Set implements [pflag.Value].
func (s *Settle) Set(text string) error {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return fmt.Errorf("invalid duration %q: must be a number with a unit, such as 44h", text)
	case d < 0:
		return fmt.Errorf("invalid duration %q: must not be negative", text)
	case d == 0:
		d = -1
	}
	s.Duration = d
	return nil
}

// String implements [pflag.Value].
func (s *Settle) String() string {
	if s.Duration == 0 {
		return ""
	}
	return max(s.Duration, 0).String()
}

// Type implements [pflag.Value].
func (s *Settle) Type() string { return "duration" }
