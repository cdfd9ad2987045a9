// Package version returns the version and the commit of a program. A release sets them with linker flags:
//
//	-X github.com/secretmanager-io/secretmanager/internal/version.version=v1.2.3
//	-X github.com/secretmanager-io/secretmanager/internal/version.commit=0123456789ab…
//
// Go can also record the commit, but only in a clone of the repository: a build in a container or from an archive would
// differ. So release builds turn that off (-buildvcs=false). Without linker flags, as after `go install MODULE@VERSION`
// or a plain `go build`, the package uses what Go has recorded.
package version

import (
	"crypto/fips140"
	"fmt"
	"runtime"
	"runtime/debug"
)

// Set by the linker.
var version, commit string

// unknown is the version of a build without any information. It is a semantic version lower than every release.
const unknown = "v0.0.0-devel"

// Number returns the semantic version, with the prefix v.
func Number() string {
	info, _ := debug.ReadBuildInfo()
	return number(version, info)
}

func number(stamped string, info *debug.BuildInfo) string {
	if stamped != "" {
		return stamped
	}
	if info == nil {
		return unknown
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	if revision := setting(info, "vcs.revision"); len(revision) >= 12 {
		return unknown + "+" + revision[:12]
	}
	return unknown
}

// Commit returns the commit, or "unknown".
func Commit() string {
	if commit != "" {
		return commit
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		if revision := setting(info, "vcs.revision"); revision != "" {
			return revision
		}
	}
	return "unknown"
}

// Line describes the build in one line:
//
//	secretmanager v1.2.3 (commit 0123456789ab…, go1.26.8, linux/amd64, FIPS 140-3 off)
//
// If Go's cryptographic module runs in FIPS 140-3 mode, the line has the version of the module.
func Line(program string) string {
	from := Commit()
	fips := "off"
	if fips140.Enabled() {
		fips = "on, module " + fips140.Version()
	}
	return fmt.Sprintf("%s %s (commit %s, %s, %s/%s, FIPS 140-3 %s)",
		program, Number(), from, runtime.Version(), runtime.GOOS, runtime.GOARCH, fips)
}

func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}
