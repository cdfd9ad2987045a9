package programs

import "syscall"

// buildAttributes starts the build in a new process group, so that all of its processes can be interrupted, and makes
// the kernel interrupt it when this process is killed.
func buildAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
}
