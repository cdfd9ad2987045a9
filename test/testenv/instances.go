package testenv

import "sync"

// An instance is something started that has to be stopped.
type instance interface {
	Stop()
	// tail returns the last lines of its logs.
	tail() string
}

// instances are those that run now, for Main to stop what is left.
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
