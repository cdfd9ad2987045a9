package unixsocket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTakeoverWithoutGap: whoever comes while one process after the other takes the
// path over finds a socket that listens. A driver that has just started looks once,
// and fails the mount.
func TestTakeoverWithoutGap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.sock")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	stop, refused := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(refused)
		for {
			select {
			case <-stop:
				return
			default:
			}
			conn, err := net.Dial("unix", path)
			if errors.Is(err, syscall.EAGAIN) {
				continue // its queue is full: nobody accepts here
			}
			if err != nil {
				refused <- err
				return
			}
			conn.Close()
		}
	}()
	for range 300 {
		// Those that were replaced listen until the end, as they do until the new
		// one is ready.
		next, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
	}
	close(stop)
	if err := <-refused; err != nil {
		t.Error(err)
	}
}

// TestSocketLock: whose socket it is may not change between looking and
// removing. What is not safe in time is not visible in one go, so this checks
// that both sides wait for the lock.
func TestSocketLock(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p.sock")
	s, err := Listen(path)
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
	var second *Socket
	for _, test := range []struct {
		name string
		do   func() error
	}{
		{"listening", func() (err error) { second, err = Listen(path); return err }},
		{"closing", func() error { return s.Close() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			unlock, err := lockDirectory(path)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- test.do() }()
			for !isWaiting() {
				select {
				case <-done:
					t.Fatal("it did not wait for the lock")
				case <-time.After(5 * time.Millisecond):
				}
			}
			unlock()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	if !second.Owned() {
		t.Error("the first took the second's socket away")
	}
	second.Close()
}
