package main

import (
	"fmt"
	"slices"
	"strings"
)

// A platform is what Go calls GOOS and GOARCH.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "/" + p.arch }

// exe returns the suffix of programs.
func (p platform) exe() string {
	if p.os == "windows" {
		return ".exe"
	}
	return ""
}

// supported are the platforms of the CLI. The image has those with Linux.
var supported = []platform{
	{"darwin", "amd64"}, {"darwin", "arm64"},
	{"linux", "amd64"}, {"linux", "arm64"},
	{"windows", "amd64"}, {"windows", "arm64"},
}

// choose returns the platforms of the list, sorted; all of them if it is empty.
func choose(list string) ([]platform, error) {
	if list == "" {
		return supported, nil
	}
	var chosen []platform
	names := strings.Split(list, ",")
	for _, p := range supported {
		if i := slices.Index(names, p.String()); i >= 0 {
			chosen = append(chosen, p)
			names = slices.Delete(names, i, i+1)
		}
	}
	if len(names) > 0 {
		return nil, fmt.Errorf("unsupported platforms %q: must be among %v", names, supported)
	}
	return chosen, nil
}

func (r *release) linux() []platform {
	return slices.DeleteFunc(slices.Clone(r.platforms), func(p platform) bool { return p.os != "linux" })
}
