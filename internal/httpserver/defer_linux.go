package httpserver

import "syscall"

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
