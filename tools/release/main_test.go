package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestRefused(t *testing.T) {
	good := []string{"-version=" + testVersion, "-commit=" + testCommit, "-date=" + testDate}
	full := t.TempDir()
	if err := writeAll(full, []file{{"left", 0o644, nil}}); err != nil {
		t.Fatal(err)
	}
	out := "-out=" + filepath.Join(t.TempDir(), "dist")
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"nothing to make":    {good, "set either -out or -rootfs"},
		"argument":           {append(good, out, "now"), "unexpected arguments"},
		"version without v":  {append(good, out, "-version=1.2.3"), `"1.2.3" is not of the form`},
		"version for no tag": {append(good, out, "-version=v1.2.3+a"), `"v1.2.3+a" is not of the form`},
		"date":               {append(good, out, "-date=today"), `"today" is not a number`},
		"platform":           {append(good, out, "-platforms=plan9/amd64"), "plan9/amd64"},
		"not a clone":        {[]string{out, "-root=" + t.TempDir()}, "outside a clone, set -version, -commit and -date"},
		"not empty":          {append(good, "-out="+full), "is not empty"},
		"image for Windows":  {append(good, "-rootfs="+full, "-platforms=windows/amd64"), "one platform with Linux"},
		"image for all":      {append(good, "-rootfs="+full), "one platform with Linux"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), test.args); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// TestMake checks that `make build` stamps as a release does, and `make release` passes its variables on.
func TestMake(t *testing.T) {
	r := &release{version: testVersion, commit: testCommit}
	for target, want := range map[string][]string{
		"build":          {"GOFIPS140=off go build -buildvcs=false -trimpath -ldflags '" + r.ldflags() + "'"},
		"build FIPS=1":   {"GOFIPS140=" + fipsModule + " go build"},
		"release":        {"go run . -version '" + testVersion + "'  -out ../../dist\n"},
		"release FIPS=1": {"-fips -out ../../dist-fips"},
		"test-fips":      {"GOFIPS140=" + fipsModule + " "},
	} {
		args := append([]string{"-n", "VERSION=" + testVersion, "COMMIT=" + testCommit}, strings.Fields(target)...)
		cmd := exec.CommandContext(t.Context(), "make", args...)
		cmd.Dir = "../.."
		output, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		for _, text := range want {
			if !strings.Contains(string(output), text) {
				t.Errorf("make %s lacks %q:\n%s", target, text, output)
			}
		}
	}
}
