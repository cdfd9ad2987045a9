package options

import (
	"strings"

	"github.com/spf13/pflag"
)

// PathVar defines a flag for a path in Vault, such as the path of a mount. It removes leading and trailing
// slashes: the vault command prints such paths with a trailing slash.
func PathVar(f *pflag.FlagSet, p *string, name, value, usage string) {
	_ = (*path)(p).Set(value)
	f.Var((*path)(p), name, usage)
}

// TrimPath removes spaces and slashes at both ends of a path.
func TrimPath(text string) string { return strings.Trim(strings.TrimSpace(text), "/") }

type path string

func (p *path) Set(text string) error {
	*p = path(TrimPath(text))
	return nil
}

func (p *path) String() string { return string(*p) }

// Type implements pflag.Value. The help shows the flag as a string.
func (*path) Type() string { return "string" }
