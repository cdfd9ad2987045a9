package programs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// A Component is built in one of several versions. Each version is a nested module in the component's directory.
type Component struct {
	// Variable is the environment variable that selects a version: K8S=1.36.
	Variable string
	// Default is the version without the variable.
	Default string

	dir    string // has a directory for each version
	module string // the module whose version is the component's
}

// Components that the tests run against in several versions.
var (
	Kubernetes = Component{Variable: "K8S", Default: "1.37", dir: "test/kubernetes", module: "k8s.io/kubernetes"}
	Driver     = Component{Variable: "DRIVER", Default: "1.6.1", dir: "test/driver",
		module: "sigs.k8s.io/secrets-store-csi-driver"}
)

// A Version is the selected version of a component.
type Version struct {
	Name string // of the directory: 1.37
	Tag  string // of the release: v1.37.2
	Dir  string // of the nested module, relative to the root of the repository
}

// Selected returns the version that the environment selects. It fails if there is none of this name.
func (c Component) Selected() (Version, error) {
	root, err := Root()
	if err != nil {
		return Version{}, err
	}
	return c.selected(root)
}

func (c Component) selected(root string) (Version, error) {
	name := os.Getenv(c.Variable)
	if name == "" {
		name = c.Default
	}
	all, err := c.versions(root)
	if err != nil {
		return Version{}, err
	}
	if !slices.Contains(all, name) {
		return Version{}, fmt.Errorf("%s=%s: no such version in %s; there are %s", c.Variable, name, c.dir,
			strings.Join(all, ", "))
	}
	v := Version{Name: name, Dir: filepath.Join(c.dir, name)}
	file := filepath.Join(root, v.Dir, "go.mod")
	text, err := os.ReadFile(file)
	if err != nil {
		return Version{}, err
	}
	parsed, err := modfile.ParseLax(file, text, nil)
	if err != nil {
		return Version{}, err
	}
	for _, required := range parsed.Require {
		if required.Mod.Path == c.module {
			v.Tag = required.Mod.Version
			return v, nil
		}
	}
	return Version{}, fmt.Errorf("%s does not require %s", file, c.module)
}

// versions returns the names of the versions in the repository.
func (c Component) versions(root string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(root, c.dir, "[0-9]*", "go.mod"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, file := range files {
		names = append(names, filepath.Base(filepath.Dir(file)))
	}
	return names, nil
}
