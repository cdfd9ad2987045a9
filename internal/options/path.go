package options

import (
	"strings"

	"github.com/spf13/pflag"
)

// PathVar defines a flag for a path in Vault, such as that of a mount. Vault's own tools print such paths with a
// slash at the end, so slashes at the ends are removed.
func PathVar(f *pflag.FlagSet, p *string, name, value, usage string) {
	_ = (*path)(p).Set(value)
	f.Var((*path)(p), name, usage)
}

// TrimPath returns a path as [PathVar] stores it.
func TrimPath(text string) string { return strings.Trim(strings.TrimSpace(text), "/") }

type path string

func (p *path) Set(text string) error {
	*p = path(TrimPath(text))
	return nil
}

func (p *path) String() string { return string(*p) }

// Type makes the help that of a string.
func (*path) Type() string { return "string" }
