//go:build !unix

package provider

import "errors"

// The provider is for nodes with Linux. Elsewhere the package is there for the
// CLI, which knows the parameters of a class by it.
func lockFolder(string) (unlock func(), err error) {
	return nil, errors.New("the provider cannot run on this operating system")
}
