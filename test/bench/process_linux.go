package main

import "syscall"

// childAttributes lets the kernel end the child if this process is killed, and
// keeps Ctrl-C in a terminal from it: this process ends its children in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
