// Package unixsocket listens on a unix socket, and takes over its path from another process without a gap.
package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// Socket is a unix socket that has taken over its path, and removes the path only while it leads to this socket.
type Socket struct {
	*net.UnixListener
	path string
	info os.FileInfo // identifies the socket
}

// Listen creates a socket at path, and replaces a stale one or that of the process that this one replaces. The path
// always leads to a socket: the new one is bound to a temporary path and renamed. Only the owner can connect.
func Listen(path string) (_ *Socket, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("listening on %s: %w", path, err)
		}
	}()
	unlock, err := lockDirectory(path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, errors.New("the file is not a socket")
	}
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	// A process that was killed before its rename has left the file. No other process can be between the two steps,
	// because this one holds the lock.
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // it would remove the temporary path
	info, err := os.Lstat(temporary)
	if err == nil {
		err = os.Chmod(temporary, 0o600)
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(temporary))
	}
	return &Socket{l, path, info}, nil
}

// Owned reports whether the path still leads to this socket.
func (s *Socket) Owned() bool {
	info, err := os.Lstat(s.path)
	return err == nil && os.SameFile(info, s.info)
}

// Close stops listening, and removes the path if it still leads to this socket. Without the path, the driver fails a
// mount at once with a final code; with a dead socket, it would wait until its deadline.
func (s *Socket) Close() error {
	unlock, err := lockDirectory(s.path)
	if err == nil {
		defer unlock()
		if s.Owned() {
			err = os.Remove(s.path)
		}
	}
	return errors.Join(err, s.UnixListener.Close())
}

// Path returns the path of the socket.
func (s *Socket) Path() string { return s.path }
