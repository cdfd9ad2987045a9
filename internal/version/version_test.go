package version

import (
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
)

func TestNumber(t *testing.T) {
	built := func(main string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: main}, Settings: settings}
	}
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef"}
	for _, test := range []struct {
		name, stamped string
		info          *debug.BuildInfo
		want          string
	}{
		{"stamped", "v1.2.3", built("v1.0.0", revision), "v1.2.3"},
		{"installed by its module version", "", built("v1.0.0"), "v1.0.0"},
		{"built in a clone", "", built("(devel)", revision), "v0.0.0-devel+0123456789ab"},
		{"built elsewhere", "", built("(devel)"), "v0.0.0-devel"},
		{"nothing noted", "", nil, "v0.0.0-devel"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := number(test.stamped, test.info); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestLine(t *testing.T) {
	version, commit = "v1.2.3", "0123456789ab"
	t.Cleanup(func() { version, commit = "", "" })
	want := regexp.MustCompile(
		`^program v1\.2\.3 \(commit 0123456789ab, go1\.\S+, \w+/\w+, FIPS 140-3 (off|on, module \S+)\)$`)
	if got := Line("program"); !want.MatchString(got) {
		t.Errorf("got %s", got)
	}
	version, commit = "", ""
	if got := Line("program"); !strings.HasPrefix(got, "program v0.0.0-devel (commit unknown, ") {
		t.Errorf("without stamps: %s", got)
	}
}

// TestFIPS verifies that the version shows whether the program was built with GOFIPS140.
func TestFIPS(t *testing.T) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("no build information")
	}
	want := ", FIPS 140-3 off)"
	if built := setting(info, "GOFIPS140"); built != "" && built != "off" {
		version, _, _ := strings.Cut(built, "-") // v1.0.0-HASH
		want = ", FIPS 140-3 on, module " + version + ")"
	}
	if got := Line("program"); !strings.HasSuffix(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}
