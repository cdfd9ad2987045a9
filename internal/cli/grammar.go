package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// The flags of the grammar, which mean the same in every verb that has them. The table in CONTRIBUTING.md lists them,
// and a test compares every verb with it.

// AllNamespacesFlag adds -A.
func AllNamespacesFlag(c *cobra.Command, all *bool) {
	c.Flags().BoolVarP(all, "all-namespaces", "A", false, "select the Secrets in all namespaces")
}

// SelectorFlag adds -l.
func SelectorFlag(c *cobra.Command, selector *string) {
	c.Flags().StringVarP(selector, "selector", "l", "", "label `selector` that the Secrets must match")
}

// FilenameFlags adds -f and -R.
func FilenameFlags(c *cobra.Command, files *[]string, recursive *bool) {
	c.Flags().StringArrayVarP(files, "filename", "f", nil,
		"`file` or directory of manifests; - is standard input (repeatable)")
	c.Flags().BoolVarP(recursive, "recursive", "R", false, "read directories, and those below them")
}

// OutputFlag adds -o with the formats that a verb has.
func OutputFlag(c *cobra.Command, output *string, formats ...string) {
	c.Flags().StringVarP(output, "output", "o", "", "output `format`: "+list(formats))
	FixedValues(c, "output", formats...)
}

// DryRunFlag adds --dry-run with the modes client and, for some verbs, server. Without a mode it is client.
func DryRunFlag(c *cobra.Command, mode *string, modes ...string) {
	usage := map[string]string{
		"client": "client, the default without a value: report what would be done, and change nothing",
		"server": "server: also let the API server check the change, without storing it",
	}
	texts := []string{"none"}
	for _, m := range modes {
		texts = append(texts, usage[m])
	}
	c.Flags().StringVar(mode, "dry-run", "none", strings.Join(texts, "; "))
	c.Flags().Lookup("dry-run").NoOptDefVal = "client"
	FixedValues(c, "dry-run", append([]string{"none"}, modes...)...)
}

// list returns "a, b or c".
func list(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
