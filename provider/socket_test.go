package provider

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSocketLock: whose socket it is may not change between looking and
// removing. What is not safe in time is not visible in one go, so this checks
// that both sides wait for the lock.
func TestSocketLock(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p.sock")
	s, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	waiting := fmt.Sprintf(":%d ", info.Sys().(*syscall.Stat_t).Ino)
	isWaiting := func() bool {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Skip("this system does not show who waits for a lock")
		}
		for line := range strings.Lines(string(locks)) {
			if strings.Contains(line, "->") && strings.Contains(line, waiting) {
				return true
			}
		}
		return false
	}
	var second *socket
	for _, test := range []struct {
		name string
		do   func() error
	}{
		{"listening", func() (err error) { second, err = listen(path); return err }},
		{"closing", func() error { return s.Close() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			unlock, err := lockFolder(path)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- test.do() }()
			waitFor(t, func() bool {
				select {
				case <-done:
					t.Fatal("it did not wait for the lock")
				default:
				}
				return isWaiting()
			})
			unlock()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	if !second.owned() {
		t.Error("the first took the second's socket away")
	}
	second.Close()
}
