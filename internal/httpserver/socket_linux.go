package httpserver

import (
	"net"
	"syscall"
)

// deferAccept makes the kernel hold a connection until its client has sent data, for a second or more. So silent
// connections cost this process nothing, and an accepted connection can be read at once.
func deferAccept(_, _ string, c syscall.RawConn) (err error) {
	if e := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, 1)
	}); e != nil {
		return e
	}
	return err
}

// peek copies the bytes that have arrived on the connection. It does not block, and does not consume them.
func peek(c *net.TCPConn, buffer []byte) (n int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	err = raw.Read(func(fd uintptr) bool {
		n, _, err = syscall.Recvfrom(int(fd), buffer, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	if err != nil {
		return 0
	}
	return max(n, 0)
}
