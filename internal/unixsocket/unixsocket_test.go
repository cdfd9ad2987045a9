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

// TestTakeoverWithoutGap verifies that while processes replace each other, every client
// finds a listening socket. A driver that has just started connects once, and fails the
// mount if that fails.
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
				continue // its queue is full, because this test accepts no connections
			}
			if err != nil {
				refused <- err
				return
			}
			conn.Close()
		}
	}()
	for range 300 {
		// A replaced process listens until the new one is ready, so keep all of them
		// open until the end.
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

// TestSocketLock: the owner of the socket must not change between the check and the
// removal. A race would rarely show in a test, so this one checks that both sides wait
// for the lock.
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
			t.Skip("this system does not show which processes wait for a lock")
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
					t.Fatal("the call did not wait for the lock")
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
		t.Error("the first process removed the second's socket")
	}
	second.Close()
}
