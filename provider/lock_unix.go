//go:build unix

package provider

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockFolder keeps a process that looks whose socket it is, and then removes
// it, apart from one that puts its own there between the two.
func lockFolder(path string) (unlock func(), err error) {
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
