//go:build !linux

package httpserver

import (
	"net"
	"syscall"
)

// deferAccept does nothing: the programs serve only on Linux.
func deferAccept(string, string, syscall.RawConn) error { return nil }

// peek returns nothing, so that net/http serves all requests.
func peek(*net.TCPConn, []byte) int { return 0 }
