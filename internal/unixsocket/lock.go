package unixsocket

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockDirectory excludes other processes between the look at a path and its removal, so that
// none puts its own socket there in between.
func lockDirectory(path string) (unlock func(), err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("locking %s: %w", filepath.Dir(path), err)
	}
	return func() { dir.Close() }, nil // which unlocks
}
