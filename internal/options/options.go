// Package options has the flags that the programs share: how to reach Vault, what to log and
// where to listen. Each type adds its flags to a set and validates them later, so that a
// program reports all problems of a command line at once.
package options

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"
)

// ErrVersion is the result of --version: the version has been asked for, and nothing else.
var ErrVersion = errors.New("version requested")

// Parse parses the arguments of a program that takes only flags. It returns pflag.ErrHelp or
// ErrVersion where the program has nothing else to do; else the error names all problems, those
// that validate returns included.
func Parse(f *pflag.FlagSet, args []string, validate func() []error) error {
	version := f.Bool("version", false, "print the version and what it was built from, and exit")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *version {
		return ErrVersion
	}
	var errs []error
	if f.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected arguments: %q", f.Args()))
	}
	return errors.Join(append(errs, validate()...)...)
}

// Invalid returns the error of a flag.
func Invalid(flag, format string, args ...any) error {
	return fmt.Errorf("--%s: %w", flag, fmt.Errorf(format, args...))
}
