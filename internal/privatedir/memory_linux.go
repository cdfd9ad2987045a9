package privatedir

import "syscall"

// File systems in memory, from linux/magic.h.
const (
	tmpfs = 0x01021994
	ramfs = 0x858458f6
)

// InMemory reports whether a directory is in memory. The system may still write it to swap space.
func InMemory(path string) bool {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return false
	}
	// The type of the field depends on the architecture.
	kind := uint32(s.Type)
	return kind == tmpfs || kind == ramfs
}
