package cli

import "github.com/spf13/cobra"

// FixedValues completes a flag by what it may be.
func FixedValues(c *cobra.Command, flag string, values ...string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag: each run would show it
	}
}
