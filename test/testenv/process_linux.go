package testenv

import "syscall"

// childAttributes puts the child in a process group of its own, so that Ctrl-C in
// a terminal reaches only this process, which then ends its children in order.
func childAttributes(dieWithParent bool) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if dieWithParent {
		attributes.Pdeathsig = syscall.SIGKILL
	}
	return attributes
}
