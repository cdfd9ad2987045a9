//go:build unix

package testenv

import "syscall"

// Freeze suspends the Vault (SIGSTOP): it accepts connections, and responds to nothing until [Vault.Thaw].
func (v *Vault) Freeze() error { return v.signal(syscall.SIGSTOP) }

// Thaw continues a frozen Vault. Thaw a Vault before [Vault.Stop], which otherwise waits until it may kill it.
func (v *Vault) Thaw() error { return v.signal(syscall.SIGCONT) }

func (v *Vault) signal(s syscall.Signal) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.process.cmd.Process.Signal(s)
}
