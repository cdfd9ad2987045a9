package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// fipsModule is the version of Go's cryptographic module in a FIPS build: the newest
// certified one that the toolchain knows.
const fipsModule = "certified"

// ldflags set version and commit, and omit debug information.
func (r *release) ldflags() string {
	const at = "github.com/secretmanager-io/secretmanager/internal/version."
	return "-s -w -X " + at + "version=" + r.version + " -X " + at + "commit=" + r.commit
}

// build compiles the programs for the platform and returns their paths, in order.
func (r *release) build(ctx context.Context, p platform, names ...string) ([]string, error) {
	dir := filepath.Join(r.work, p.os+"_"+p.arch)
	var paths, packages []string
	for _, name := range names {
		path := filepath.Join(dir, name+p.exe())
		paths = append(paths, path)
		if _, err := os.Stat(path); err != nil {
			packages = append(packages, "./cmd/"+name)
		}
	}
	if len(packages) == 0 {
		return paths, nil
	}
	fmt.Fprintf(os.Stderr, "building %s for %s\n", strings.Join(names, " and "), p)
	args := []string{"build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", r.ldflags(), "-o",
		dir + string(filepath.Separator)}
	if _, err := r.goCommand(ctx, p, append(args, packages...)...); err != nil {
		return nil, err
	}
	return paths, nil
}

// goCommand runs the go command in the repository for the platform, without environment
// variables that would change the result. Proxies and caches are kept.
func (r *release) goCommand(ctx context.Context, p platform, args ...string) ([]byte, error) {
	set := map[string]string{
		"CGO_ENABLED": "0", "GOOS": p.os, "GOARCH": p.arch, "GOAMD64": "v1", "GOARM64": "v8.0",
		"GOFIPS140": "off", "GOWORK": "off", "PWD": r.root,
		"GOFLAGS": "-trimpath", // not empty, or the setting of `go env -w` would apply
	}
	if r.fips {
		set["GOFIPS140"] = fipsModule
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = r.root
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); set[name] == "" && name != "GOEXPERIMENT" {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	for name, value := range set {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var problem strings.Builder
	cmd.Stderr = &problem
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s for %s: %w\n%s", args[0], p, err, problem.String())
	}
	return output, nil
}
