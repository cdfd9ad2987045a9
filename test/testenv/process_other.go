//go:build !linux

package testenv

import "syscall"

// childAttributes puts the child in a process group of its own. Only Linux can
// kill it together with this process; elsewhere Stop has to.
func childAttributes(bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
