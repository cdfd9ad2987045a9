package provider

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// Limits of Linux, which the driver checks too. maxPath is of the whole path:
// the driver writes to the target folder, in a folder of its own.
const (
	maxComponent = 255
	maxPath      = 4095
)

// driverFolder is how the driver's own folder looks.
const driverFolder = "/..2006_01_02_15_04_05.1234567890/"

// pathSet is the files of one volume. Its zero value is empty.
type pathSet struct {
	target string            // folder that the driver writes to
	files  map[string]string // by path: whose it is, for messages
	dirs   map[string]string // folders that the files are in: whose
}

// add takes up a path, or says why the driver could not write it.
func (s *pathSet) add(p, whose string) error {
	if err := checkPath(p, s.target); err != nil {
		return err
	}
	if s.files == nil {
		s.files, s.dirs = map[string]string{}, map[string]string{}
	}
	if other, ok := s.files[p]; ok {
		return fmt.Errorf("%s is the path of %s too", failure.Quote(p), other)
	}
	if other, ok := s.dirs[p]; ok {
		return fmt.Errorf("%s is a folder, as %s is in it", failure.Quote(p), other)
	}
	for i := range p {
		if p[i] != '/' {
			continue
		}
		if other, ok := s.files[p[:i]]; ok {
			return fmt.Errorf("%s is under %s, which is the file of %s", failure.Quote(p), failure.Quote(p[:i]), other)
		}
	}
	s.files[p] = whose
	for i := range p {
		if p[i] == '/' {
			s.dirs[p[:i]] = whose
		}
	}
	return nil
}

// checkPath reports whether the driver can write a file of that path.
func checkPath(p, target string) error {
	switch {
	case p == "":
		return errors.New("is empty")
	case strings.HasPrefix(p, "/"):
		return fmt.Errorf("%s is absolute; it is a path in the volume", failure.Quote(p))
	case strings.ContainsRune(p, 0):
		return fmt.Errorf("%s has a zero byte in it", failure.Quote(p))
	case len(target)+len(driverFolder)+len(p) > maxPath:
		return fmt.Errorf("%s is too long: with the volume's folder it is more than %d bytes", failure.Quote(p), maxPath)
	case strings.Count(p, "/") > maxFolders:
		return fmt.Errorf("%s is in more directories than the limit of %d", failure.Quote(p), maxFolders)
	}
	for part := range strings.SplitSeq(p, "/") {
		switch {
		case part == "..":
			return fmt.Errorf(`%s has ".." in it`, failure.Quote(p))
		case len(part) > maxComponent:
			return fmt.Errorf("%s has a part that is longer than %d bytes", failure.Quote(p), maxComponent)
		}
	}
	switch {
	case strings.HasPrefix(p, ".."):
		return fmt.Errorf(`%s begins with "..", as the driver's own files do`, failure.Quote(p))
	case p == ".":
		// The driver would empty the volume.
		return fmt.Errorf("%s is the volume itself and not a file in it", failure.Quote(p))
	case path.Clean(p) != p:
		return fmt.Errorf("%s is not clean; write %s", failure.Quote(p), failure.Quote(path.Clean(p)))
	}
	return nil
}
