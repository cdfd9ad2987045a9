package main

import (
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"
	"testing"
)

// TestPage checks that docs/release.md names exactly the files of a release, and that
// its commands and its example are valid.
func TestPage(t *testing.T) {
	page := string(read(t, "../..", "docs", "release.md"))
	entries, err := os.ReadDir(released(t))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(page, "| file | |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	matched := map[string]bool{}
	for row := range strings.SplitSeq(table, "\n") {
		pattern := strings.Split(row, "`")[1]
		name := strings.NewReplacer("VERSION", testVersion, "OS", here.os, "ARCH", here.arch).Replace(pattern)
		found := false
		for _, e := range entries {
			if ok, err := path.Match(name, e.Name()); err == nil && ok || pattern == e.Name() {
				matched[e.Name()], found = true, true
			}
		}
		if !found {
			t.Errorf("the release has no %s", pattern)
		}
	}
	for _, e := range entries {
		if !matched[e.Name()] {
			t.Errorf("the page does not name %s", e.Name())
		}
	}

	example := regexp.MustCompile(`(?m)^secretmanager v\S+ \(commit [0-9a-f]{40}, go1\.\S+, \w+/\w+, FIPS 140-3 off\)$`)
	if !example.MatchString(page) {
		t.Error("the example of --version has another format")
	}
	for _, m := range regexp.MustCompile("(?m)^make .*?(#|$)|`(make [^`]+)`").FindAllString(page, -1) {
		words := strings.Fields(strings.Trim(m, "`#"))
		cmd := exec.CommandContext(t.Context(), "make", append([]string{"-n"}, words[1:]...)...)
		cmd.Dir = "../.."
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", m, err, output)
		}
	}
}
