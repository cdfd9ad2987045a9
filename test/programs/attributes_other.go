//go:build !linux

package programs

import "syscall"

// buildAttributes starts the build in a new process group, so that all of its processes can be interrupted.
func buildAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
