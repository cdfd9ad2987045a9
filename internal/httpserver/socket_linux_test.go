package httpserver

import (
	"net/http"
	"syscall"
	"testing"
)

// TestSilentConnectionsWait verifies that the kernel keeps a connection until its client sends something.
func TestSilentConnectionsWait(t *testing.T) {
	l, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := l.Listener.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	seconds := 0
	if e := raw.Control(func(fd uintptr) {
		seconds, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT)
	}); e != nil || err != nil {
		t.Fatal(e, err)
	}
	if seconds < 1 {
		t.Errorf("waited for %d seconds", seconds)
	}
	// A connection that sends something gets a response.
	address := serve(t, defaultTimeouts, func(http.ResponseWriter, *http.Request) {})
	if got := get(t, address, 1, "/"); got != http.StatusOK {
		t.Errorf("HTTP %d", got)
	}
}
