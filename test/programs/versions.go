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

// Selected returns the version that the environment selects. It fails if no version has this name.
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
	n := slices.IndexFunc(all, func(v Version) bool { return v.Name == name })
	if n < 0 {
		var names []string
		for _, v := range all {
			names = append(names, v.Name)
		}
		return Version{}, fmt.Errorf("%s=%s: no such version in %s; there are %s", c.Variable, name, c.dir,
			strings.Join(names, ", "))
	}
	return all[n], nil
}

// Versions returns all versions, sorted by name.
func (c Component) Versions() ([]Version, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	return c.versions(root)
}

func (c Component) versions(root string) ([]Version, error) {
	files, err := filepath.Glob(filepath.Join(root, c.dir, "[0-9]*", "go.mod"))
	if err != nil {
		return nil, err
	}
	var all []Version
	for _, file := range files {
		tag, err := c.required(file)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(filepath.Dir(file))
		all = append(all, Version{Name: name, Tag: tag, Dir: filepath.Join(c.dir, name)})
	}
	return all, nil
}

// required returns the version of the component's module in a go.mod.
func (c Component) required(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	parsed, err := modfile.ParseLax(file, text, nil)
	if err != nil {
		return "", err
	}
	for _, required := range parsed.Require {
		if required.Mod.Path == c.module {
			return required.Mod.Version, nil
		}
	}
	return "", fmt.Errorf("%s does not require %s", file, c.module)
}
