package main

import (
	"bytes"
	"fmt"
	"go/version"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// dockerfileName matches the files that container builders read by default.
	dockerfileName = regexp.MustCompile(`^((Docker|Container)file(\..+)?|.+\.([Dd]ocker|[Cc]ontainer)file)$`)
	// pinned matches an image with a tag, for people, and a digest, for the builder.
	pinned = regexp.MustCompile(`^[a-z0-9][a-z0-9./-]*:[\w.-]+@sha256:[0-9a-f]{64}$`)
	// syntax matches the comment that makes BuildKit pull an image before it reads the file.
	syntax = regexp.MustCompile(`(?mi)^#\s*syntax\s*=\s*(\S+)`)
	from   = regexp.MustCompile(`(?i)^FROM\s+(?:--platform=\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?\s*$`)
	// taken matches where COPY and RUN --mount take files from, but for the build's own directory.
	taken = regexp.MustCompile(`(?i)(?:--from=|[,=]from=)([^\s,]+)`)
)

// unpinned returns a message for each image that the Dockerfile uses without a digest.
func unpinned(dockerfile string) (problems []string) {
	check := func(line, image string, stages []string) {
		if image != "scratch" && !slices.Contains(stages, strings.ToLower(image)) && !pinned.MatchString(image) {
			problems = append(problems,
				fmt.Sprintf("%s: %s is neither scratch, an earlier stage, nor NAME:TAG@sha256:DIGEST", line, image))
		}
	}
	for _, m := range syntax.FindAllStringSubmatch(dockerfile, -1) {
		check(m[0], m[1], nil)
	}
	var stages []string
	for line := range strings.SplitSeq(regexp.MustCompile(`\\\r?\n`).ReplaceAllString(dockerfile, ""), "\n") {
		line = strings.TrimSpace(line)
		instruction, _, _ := strings.Cut(strings.Join(strings.Fields(line), " "), " ")
		switch strings.ToUpper(instruction) {
		case "FROM":
			m := from.FindStringSubmatch(line)
			if m == nil {
				problems = append(problems, line+": unexpected form of FROM")
				continue
			}
			check(line, m[1], stages)
			stages = append(stages, strings.ToLower(m[2]))
		case "COPY", "ADD", "RUN":
			for _, m := range taken.FindAllStringSubmatch(line, -1) {
				check(line, m[1], stages)
			}
		}
	}
	return problems
}

// TestBaseImagesArePinned checks that every Dockerfile of the repository pins its base
// images, so that they cannot be replaced under the same tag.
func TestBaseImagesArePinned(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-co", "--exclude-standard", "-z")
	cmd.Dir = "../.."
	output, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for name := range bytes.SplitSeq(output, []byte{0}) {
		if !dockerfileName.MatchString(path.Base(string(name))) {
			continue
		}
		found = append(found, string(name))
		for _, problem := range unpinned(string(read(t, "../..", string(name)))) {
			t.Errorf("%s: %s", name, problem)
		}
	}
	for _, name := range []string{"Dockerfile", "test/e2e/images/Dockerfile", "test/e2e/nodeimage/Dockerfile"} {
		if !slices.Contains(found, name) {
			t.Errorf("%s is not among the Dockerfiles found: %v", name, found)
		}
	}
}

func TestUnpinned(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0a", 32)
	for dockerfile, want := range map[string]int{
		"FROM scratch": 0,
		"FROM golang:1.26" + digest + " AS build\nFROM build\nCOPY --from=build / /": 0,
		"FROM --platform=$BUILDPLATFORM registry.example/go:1" + digest:              0,
		"FROM golang:1.26":                                         1,
		"FROM\tgolang:1.26":                                        1,
		"from golang:1.26":                                         1,
		"FROM golang" + digest:                                     1,
		"FROM golang:1.26@sha256:0a":                               1,
		"ARG BASE=golang\nFROM $BASE":                              1,
		"FROM later\nFROM scratch AS later":                        1,
		"FROM scratch\nCOPY --from=alpine / /":                     1,
		"FROM scratch\nRUN --mount=type=bind,\\\nfrom=alpine true": 1,
		"# syntax=docker/dockerfile:1\nFROM scratch":               1,
		"FROM \\\n golang:1.26":                                    1,
		"FROM --unknown golang:1.26":                               1,
	} {
		if got := unpinned(dockerfile); len(got) != want {
			t.Errorf("%q: got %q, want %d problems", dockerfile, got, want)
		}
	}
}

// TestBaseImageHasTheToolchain checks that Go's pinned image is as new as each module
// requires, because it does not download a newer toolchain.
func TestBaseImageHasTheToolchain(t *testing.T) {
	m := regexp.MustCompile(`golang:([\d.]+)@`).FindStringSubmatch(dockerfile(t)[0][0][1])
	if m == nil {
		t.Fatalf("the first stage is built on %s, want golang:VERSION@DIGEST", dockerfile(t)[0][0][1])
	}
	for _, module := range []string{"../..", "."} {
		needs := regexp.MustCompile(`(?m)^go ([\d.]+)$`).FindSubmatch(read(t, module, "go.mod"))
		if needs == nil {
			t.Fatalf("%s has no go directive", filepath.Join(module, "go.mod"))
		}
		if version.Compare("go"+m[1], "go"+string(needs[1])) < 0 {
			t.Errorf("%s asks for Go %s, and the Dockerfile builds with %s", filepath.Join(module, "go.mod"), needs[1], m[1])
		}
	}
}
