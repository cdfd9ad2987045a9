package main

import (
	"bytes"
	"cmp"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// linked is what some programs are made of.
type linked struct {
	programs []program
	modules  []module // of all of them, sorted; the standard library is "std"
}

type program struct {
	name, sha256 string
	modules      []string // keys
}

type module struct {
	path, version string
	license       string // an SPDX expression
	texts         []file // what has to be passed on with it
}

func (m module) key() string { return m.path + "@" + m.version }

// linked reads from the programs which modules are in them, as `go version -m`
// shows it, and from the modules' sources what they are licensed under.
func (r *release) linked(ctx context.Context, paths []string) (*linked, error) {
	l, found := &linked{}, map[string]module{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		info, err := buildinfo.Read(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("reading what %s is made of: %w", path, err)
		}
		p := program{name: strings.TrimSuffix(filepath.Base(path), ".exe"), sha256: hash(data)}
		add := func(m module) {
			found[m.key()] = m
			p.modules = append(p.modules, m.key())
		}
		// The rest of the line is about experiments.
		goVersion, _, _ := strings.Cut(info.GoVersion, " ")
		add(module{path: "std", version: strings.TrimPrefix(goVersion, "go")})
		for _, dep := range info.Deps {
			if dep.Replace != nil {
				return nil, fmt.Errorf("%s: %s is replaced, which a bill of materials cannot say", p.name, dep.Path)
			}
			add(module{path: dep.Path, version: dep.Version})
		}
		slices.Sort(p.modules)
		l.programs = append(l.programs, p)
	}
	dirs, err := r.sources(ctx, slices.Sorted(maps.Keys(found)))
	if err != nil {
		return nil, err
	}
	var errs []error
	for key, m := range found {
		if m.texts, err = legalTexts(dirs[key]); err == nil {
			m.license, err = licenseOf(m.texts)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("the license of %s: %w", key, err))
		}
		l.modules = append(l.modules, m)
	}
	slices.SortFunc(l.modules, func(a, b module) int { return cmp.Compare(a.key(), b.key()) })
	return l, errors.Join(errs...)
}

// sources returns the directories that the sources of the modules are in.
func (r *release) sources(ctx context.Context, keys []string) (map[string]string, error) {
	here := platform{runtime.GOOS, runtime.GOARCH}
	goroot, err := r.goCommand(ctx, here, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	args := []string{"mod", "download", "-json"}
	for _, key := range keys {
		if strings.HasPrefix(key, "std@") {
			dirs[key] = strings.TrimSpace(string(goroot))
			continue
		}
		args = append(args, key)
	}
	output, err := r.goCommand(ctx, here, args...)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(output))
	for {
		var m struct{ Path, Version, Dir string }
		if err := decoder.Decode(&m); err == io.EOF {
			return dirs, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading what go mod download says: %w", err)
		}
		dirs[m.Path+"@"+m.Version] = m.Dir
	}
}

// command runs a program that was built and returns its output.
func command(ctx context.Context, path string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	var problem strings.Builder
	cmd.Stderr = &problem
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", filepath.Base(path), strings.Join(args, " "), err, problem.String())
	}
	return output, nil
}
