package programs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// stamp returns the hash of the inputs of the program: its line of the table and the files
// of its modules. It does not include the toolchain, because no test depends on that, and
// an update of Go need not cause new builds.
func stamp(root string, p program) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s/%s %q\n", runtime.GOOS, runtime.GOARCH, p.arguments("OUT"))

	for _, dir := range []string{p.dir, p.shared} {
		if dir == "" {
			continue
		}
		files, err := moduleFiles(filepath.Join(root, dir))
		if err != nil {
			return "", err
		}
		for _, file := range files {
			content, err := os.ReadFile(filepath.Join(root, dir, file))
			if err != nil {
				return "", err
			}
			fmt.Fprintf(sum, "%s %d\n", filepath.ToSlash(file), len(content))
			sum.Write(content)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// moduleFiles lists, sorted and relative to dir, the module's go.mod and go.sum and its Go files. It includes modules
// inside the module, which replace dependencies. It omits tests, which are not part of a program.
func moduleFiles(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != dir && (name == "testdata" || strings.HasPrefix(name, ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		source := strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
		if !source && name != "go.mod" && name != "go.sum" {
			return nil
		}
		file, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files = append(files, file)
		return nil
	})
	slices.Sort(files)
	return files, err
}

// isCurrent reports whether the program at path exists and was built from the inputs with the stamp want.
func isCurrent(path, want string) bool {
	have, err := os.ReadFile(path + ".stamp")
	if err != nil || strings.TrimSpace(string(have)) != want {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// writeStamp is called after the program was renamed. If the process is killed in between, the old stamp does not
// match, and the next caller builds the program again.
func writeStamp(path, stamp string) error {
	temporary := path + ".stamp.new"
	if err := os.WriteFile(temporary, []byte(stamp+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path+".stamp")
}
