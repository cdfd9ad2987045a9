package class

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Limits of a path. The driver also checks the limits of Linux. MaxPath, in bytes, is the limit of the whole path: the
// driver writes to driverDirectory in the target directory.
const (
	maxComponent   = 255
	MaxPath        = 4095
	MaxDirectories = 32 // in the path of a file
)

// driverDirectory has the length of the driver's directory.
const driverDirectory = "/..2006_01_02_15_04_05.1234567890/"

// PathSet is the set of file paths of a volume.
type PathSet struct {
	target string            // directory of the volume
	files  map[string]string // owner by path, for messages
	dirs   map[string]string // owner by directory
}

// NewPathSet returns an empty set for the target directory of a volume.
func NewPathSet(target string) *PathSet { return &PathSet{target: target} }

// Add adds the path of a file. It returns an error if the driver cannot write the file. The error does not quote the
// path, but may name the owner of another file.
func (s *PathSet) Add(p, owner string) error {
	if err := checkPath(p, s.target); err != nil {
		return err
	}
	if s.files == nil {
		s.files, s.dirs = map[string]string{}, map[string]string{}
	}
	if other, ok := s.files[p]; ok {
		return fmt.Errorf("must not be the path of %s", other)
	}
	if other, ok := s.dirs[p]; ok {
		return fmt.Errorf("must not be a directory of the file of %s", other)
	}
	for i := range p {
		if p[i] != '/' {
			continue
		}
		if other, ok := s.files[p[:i]]; ok {
			return fmt.Errorf("must not be below the file of %s", other)
		}
	}
	s.files[p] = owner
	for i := range p {
		if p[i] == '/' {
			s.dirs[p[:i]] = owner
		}
	}
	return nil
}

// checkPath returns an error if the driver cannot write a file with that path.
func checkPath(p, target string) error {
	switch {
	case p == "":
		return errors.New("must not be empty")
	case strings.HasPrefix(p, "/"):
		return errors.New("must be a path in the volume, without a leading slash")
	case strings.ContainsRune(p, 0):
		return errors.New("must not contain a zero byte")
	case len(target)+len(driverDirectory)+len(p) > MaxPath:
		return fmt.Errorf("must not be longer than %d bytes together with the directory of the volume", MaxPath)
	case strings.Count(p, "/") > MaxDirectories:
		return fmt.Errorf("must not have more than %d directories", MaxDirectories)
	}
	for part := range strings.SplitSeq(p, "/") {
		switch {
		case part == "..":
			return errors.New(`must not contain ".."`)
		case len(part) > maxComponent:
			return fmt.Errorf("must not have a part of more than %d bytes", maxComponent)
		}
	}
	switch {
	case strings.HasPrefix(p, ".."):
		return errors.New(`must not begin with "..", as the files of the driver do`)
	case p == ".":
		// The driver would empty the volume.
		return errors.New("must be a file in the volume, not the volume itself")
	case path.Clean(p) != p:
		return errors.New("must be a clean path, without empty parts, parts that are a dot, or a trailing slash")
	}
	return nil
}
