package main

import "runtime/debug"

// version is stamped by -ldflags "-X main.version=v1.2.3".
var version string

// buildVersion returns the version of this build in semver's form, as the
// provider has it.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "v0.0.0-devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "v0.0.0-devel+" + s.Value[:12]
		}
	}
	return "v0.0.0-devel"
}
