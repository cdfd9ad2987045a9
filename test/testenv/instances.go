package testenv

import (
	"os"
	"sync"
)

// An instance is a running server that must be stopped.
type instance interface {
	Stop()
	// tail returns the last lines of its logs.
	tail() string
}

// instances are the running instances, which Main stops.
var instances = struct {
	sync.Mutex
	set map[instance]bool
}{set: map[instance]bool{}}

func register(i instance) {
	instances.Lock()
	defer instances.Unlock()
	instances.set[i] = true
}

func unregister(i instance) {
	instances.Lock()
	defer instances.Unlock()
	delete(instances.set, i)
}

func stopAll() {
	instances.Lock()
	left := make([]instance, 0, len(instances.set))
	for i := range instances.set {
		left = append(left, i)
	}
	instances.Unlock()

	var done sync.WaitGroup
	for _, i := range left {
		done.Go(i.Stop)
	}
	done.Wait()
}

// TempDir returns a directory for all tests of this binary, which [Main] removes.
func TempDir() (string, error) {
	dir, err := os.MkdirTemp("", "tests-")
	if err != nil {
		return "", err
	}
	register(tempDir(dir))
	return dir, nil
}

// A tempDir is an instance without a process.
type tempDir string

func (d tempDir) Stop() { os.RemoveAll(string(d)) }

func (d tempDir) tail() string { return "" }
