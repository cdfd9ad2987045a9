// Package unixsocket listens on a unix socket that one process takes over from another, at every moment.
package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// Socket is a unix socket that takes over its path from any other process, and removes
// the path only while it leads to this socket.
type Socket struct {
	*net.UnixListener
	path string
	info os.FileInfo // of the socket, to know it again
}

// Listen makes a socket at path, over a stale one or that of a process that is being
// replaced. The path leads to a socket at every moment: the new one is bound beside it
// and renamed over it. Only the owner can connect.
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
	// Left by a process that was killed between the two steps: we have the lock.
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // it would be the temporary name
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

// Close stops listening and removes the path if it is still that of this
// socket. Without the path the driver fails a first mount at once, and with a
// final code; with a dead socket there it would wait until its deadline.
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
