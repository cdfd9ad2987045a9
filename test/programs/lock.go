package programs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lock waits for the file lock at path and takes it. The kernel releases it when a process
// dies, so a killed build does not block others.
func lock(ctx context.Context, path, name string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	unlock = func() { file.Close() }
	if tryLock(file) == nil {
		return unlock, nil
	}

	report := newProgress("waiting for another process that builds " + name)
	defer report.stop()
	// flock cannot be interrupted, so poll it: the wait must end with ctx.
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			unlock()
			return nil, fmt.Errorf("waiting for another process that builds %s: %w", name, context.Cause(ctx))
		case <-ticker.C:
		}
		switch err := tryLock(file); {
		case err == nil:
			return unlock, nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			unlock()
			return nil, fmt.Errorf("locking %s: %w", name, err)
		}
	}
}

func tryLock(file *os.File) error {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
