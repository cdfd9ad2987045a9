//go:build !linux

package programs

import "syscall"

// buildAttributes puts the build in a process group of its own, so that all of it
// can be interrupted.
func buildAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
