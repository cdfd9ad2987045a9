package httpserver

import (
	"net"
	"syscall"
)

// deferAccept has the kernel keep a connection to itself until its client has sent
// something, for a second or more. Silent connections cost this process nothing
// meanwhile, and the ones that it accepts can be answered at once.
func deferAccept(_, _ string, c syscall.RawConn) (err error) {
	if e := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, 1)
	}); e != nil {
		return e
	}
	return err
}

// peek copies what has arrived on the connection, without waiting and without taking it.
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
