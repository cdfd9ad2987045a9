//go:build !linux

package privatedir

// InMemory returns false, as it is known only on Linux.
func InMemory(string) bool { return false }
