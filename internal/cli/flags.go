package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

// Options are the options of a verb, which run as those of kubectl do.
type Options interface {
	// Complete takes the arguments.
	Complete(cmd *cobra.Command, args []string) error
	// Validate reports all problems of flags and arguments.
	Validate() error
	Run(ctx context.Context) error
}

// RunE returns the function of a command that runs options. What Validate reports is an error
// of the command line.
func RunE(o Options) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := o.Complete(cmd, args); err != nil {
			return err
		}
		if err := o.Validate(); err != nil {
			return Usage(err)
		}
		return o.Run(cmd.Context())
	}
}

// IncludeManagedFlag adds --include-managed, for verbs that write a Secret of the cluster.
func IncludeManagedFlag(f *pflag.FlagSet, value *bool) {
	f.BoolVar(value, "include-managed", false, "write the Secret of the cluster even if somebody else, such as Argo CD, "+
		"manages it and will revert the change")
}

// FixedValues completes a flag by the values that it takes.
func FixedValues(c *cobra.Command, flag string, values ...string) {
	if err := c.RegisterFlagCompletionFunc(flag,
		cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag does not exist: every call would panic
	}
}

// ValidateOutput reports whether -o is empty or one of the formats.
func ValidateOutput(format string, formats ...string) error {
	if format == "" {
		return nil
	}
	return ValidateValue("-o", format, formats...)
}

// ValidateValue reports whether the value of a flag is one of those allowed.
func ValidateValue(flag, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return display.Errorf("invalid %s %q: must be %s", flag, value, list(allowed))
}

// ValidateSelector reports what is wrong with the label selector of -l.
func ValidateSelector(selector string) error {
	if _, err := labels.Parse(selector); err != nil {
		return display.Errorf("invalid -l %q: %w", selector, err)
	}
	return nil
}

// Problems collects the problems of a command line.
type Problems struct{ errs []error }

// Add adds errors, if there are any.
func (p *Problems) Add(errs ...error) { p.errs = append(p.errs, errs...) }

// If adds a problem where the condition is true.
func (p *Problems) If(condition bool, problem string) {
	if condition {
		p.errs = append(p.errs, errors.New(problem))
	}
}

// Err returns all of them, nil for none.
func (p *Problems) Err() error { return errors.Join(p.errs...) }
