package programs

import "syscall"

// buildAttributes puts the build in a process group of its own, so that all of it
// can be interrupted, and has the kernel interrupt it when this process is killed.
func buildAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
}
