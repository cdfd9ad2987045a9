package privatedir

import "syscall"

// The numbers of file systems that are in memory, from linux/magic.h.
const (
	tmpfs = 0x01021994
	ramfs = 0x858458f6
)

// InMemory is whether what is in a folder is on no disk. The system may still
// write memory to its swap space.
func InMemory(path string) bool {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return false
	}
	// The field is of another type on each architecture.
	kind := uint32(s.Type)
	return kind == tmpfs || kind == ramfs
}
