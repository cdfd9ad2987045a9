// Package version says what a program of ours was built from. A release stamps
// version and commit with the linker:
//
//	-X github.com/secretmanager-io/secretmanager/internal/version.version=v1.2.3
//	-X github.com/secretmanager-io/secretmanager/internal/version.commit=0123456789ab…
//
// Go could stamp the commit by itself, but only where the sources are a clone of
// the repository: a build in a container or from an archive would come out
// different. So our builds turn that off (-buildvcs=false). What was not stamped
// is taken from what Go notes by itself, for `go install MODULE@VERSION` and a
// plain `go build`.
package version

import (
	"crypto/fips140"
	"fmt"
	"runtime"
	"runtime/debug"
)

// Stamped by the linker.
var version, commit string

// unknown is the version of a build of which nothing is known: semver's form,
// below every release.
const unknown = "v0.0.0-devel"

// Number returns the version in semver's form, with its v.
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

// Line returns everything about the build, in a line for people:
//
//	secretmanager v1.2.3 (commit 0123456789ab…, go1.26.8, linux/amd64, FIPS 140-3 off)
//
// Of FIPS 140-3 it says whether Go's cryptographic module runs in that mode, and
// which version of the module it is.
func Line(program string) string {
	info, _ := debug.ReadBuildInfo()
	from := commit
	if from == "" && info != nil {
		from = setting(info, "vcs.revision")
	}
	if from == "" {
		from = "unknown"
	}
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
