package provider

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// socket is a unix socket that takes over its path from whoever had it, and
// lets go of it only as long as it is its own.
type socket struct {
	*net.UnixListener
	path string
	info os.FileInfo // of the socket, to know it again
}

// listen makes a socket at path, where there may be a stale one or that of a
// process which is about to be replaced. At no moment is there none: it is
// bound beside the path and renamed over it. Only its owner can connect.
func listen(path string) (_ *socket, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("listening on %s: %w", path, err)
		}
	}()
	unlock, err := lockFolder(path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, errors.New("there is something else than a socket")
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
	return &socket{l, path, info}, nil
}

// owned reports whether the path is still that of this socket.
func (s *socket) owned() bool {
	info, err := os.Lstat(s.path)
	return err == nil && os.SameFile(info, s.info)
}

// Close stops listening and removes the path if it is still that of this
// socket. Without the path the driver fails a first mount at once, and with a
// final code; with a dead socket there it would wait until its deadline.
func (s *socket) Close() error {
	unlock, err := lockFolder(s.path)
	if err == nil {
		defer unlock()
		if s.owned() {
			err = os.Remove(s.path)
		}
	}
	return errors.Join(err, s.UnixListener.Close())
}
