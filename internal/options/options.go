// Package options has the flags that the programs share: Vault, the log, and addresses to listen on. Each type adds its
// flags to a set and validates them later, so that a program reports all problems of a command line at once.
package options

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"
)

// ErrVersion is returned for --version: the program prints the version and exits.
var ErrVersion = errors.New("version requested")

// Parse parses the arguments of a program that takes only flags. It returns pflag.ErrHelp or ErrVersion if the program
// has nothing else to do. Otherwise the error names all problems, including those that validate returns.
func Parse(f *pflag.FlagSet, args []string, validate func() []error) error {
	version := f.Bool("version", false, "print the version and the commit, and exit")
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

// Invalid returns an error that begins with the name of the flag.
func Invalid(flag, format string, args ...any) error {
	return fmt.Errorf("--%s: %w", flag, fmt.Errorf(format, args...))
}
