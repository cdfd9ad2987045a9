package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"
)

// A file is one of an archive or an image, below its root.
type file struct {
	name string // with slashes
	mode fs.FileMode
	data []byte
}

func sorted(files []file) []file {
	return slices.SortedFunc(slices.Values(files), func(a, b file) int { return cmp.Compare(a.name, b.name) })
}

// tarOf packs the files and, if directories is set, their directories, which an image
// needs and an archive does not.
func tarOf(files []file, date time.Time, directories bool) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	header := tar.Header{ModTime: date, Format: tar.FormatUSTAR} // owned by 0:0
	done := map[string]bool{".": true}
	var dir func(name string) error
	dir = func(name string) error {
		if done[name] || !directories {
			return nil
		}
		done[name] = true
		if err := dir(path.Dir(name)); err != nil {
			return err
		}
		h := header
		h.Typeflag, h.Name, h.Mode = tar.TypeDir, name+"/", 0o755
		return w.WriteHeader(&h)
	}
	for _, f := range sorted(files) {
		if err := dir(path.Dir(f.name)); err != nil {
			return nil, err
		}
		h := header
		h.Typeflag, h.Name, h.Mode, h.Size = tar.TypeReg, f.name, int64(f.mode), int64(len(f.data))
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func gzipOf(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression) // its header has no time and no name
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func zipOf(files []file, date time.Time) ([]byte, error) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range sorted(files) {
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: date}
		h.SetMode(f.mode)
		part, err := w.CreateHeader(h)
		if err != nil {
			return nil, err
		}
		if _, err := part.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// writeAll writes the files below the directory.
func writeAll(dir string, files []file) error {
	for _, f := range files {
		to := filepath.Join(dir, filepath.FromSlash(f.name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, f.data, f.mode); err != nil {
			return fmt.Errorf("laying out the image: %w", err)
		}
	}
	return nil
}
