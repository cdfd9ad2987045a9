package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
)

// TestBOM checks that each program in a published file depends on exactly the modules
// that `go version -m` shows.
func TestBOM(t *testing.T) {
	_, files, _ := image(t)
	for bom, programs := range map[string]map[string]file{
		"secretmanager_" + testVersion + "_linux_" + here.arch: {"secretmanager": cliFiles(t)["secretmanager"]},
		"secretmanager-image_" + testVersion + "_linux_" +
			here.arch: {inImage[0]: files["bin/"+inImage[0]], inImage[1]: files["bin/"+inImage[1]]},
	} {
		t.Run(bom, func(t *testing.T) { checkBOM(t, read(t, released(t), bom+".cdx.json"), programs) })
	}
}

func checkBOM(t *testing.T, data []byte, programs map[string]file) {
	bom := new(cyclonedx.BOM)
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(data), cyclonedx.BOMFileFormatJSON).Decode(bom); err != nil {
		t.Fatal(err)
	}
	components := map[string]cyclonedx.Component{}
	unused := map[string]bool{}
	for _, c := range *bom.Components {
		if components[c.BOMRef].BOMRef != "" {
			t.Errorf("%s is listed twice", c.BOMRef)
		}
		components[c.BOMRef] = c
		unused[c.BOMRef] = true
		if c.Licenses == nil || len(*c.Licenses) != 1 || c.PackageURL == "" {
			t.Errorf("%s has licenses %v, package URL %q", c.BOMRef, c.Licenses, c.PackageURL)
		}
	}
	depends := map[string][]string{}
	for _, d := range *bom.Dependencies {
		depends[d.Ref] = *d.Dependencies
	}
	if got := depends[bom.Metadata.Component.BOMRef]; len(got) != len(programs) {
		t.Errorf("its programs are %v", got)
	}
	for name, f := range programs {
		if got := (*components[name].Hashes)[0].Value; got != hash(f.data) {
			t.Errorf("%s: the hash is %s, want %s", name, got, hash(f.data))
		}
		delete(unused, name)
		want := modulesOf(t, f)
		if diff := cmp.Diff(want, depends[name]); diff != "" {
			t.Errorf("%s: -linked +listed:\n%s", name, diff)
		}
		for _, key := range want {
			delete(unused, key)
		}
	}
	for key := range unused {
		t.Errorf("%s is listed and in no program", key)
	}
}

// modulesOf returns the linked modules according to the go command.
func modulesOf(t *testing.T, f file) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, f.data, 0o755); err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(t.Context(), "go", "version", "-m", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(string(output), "\n")
	modules := []string{"std@" + strings.TrimPrefix(strings.Fields(strings.TrimPrefix(first, path+": "))[0], "go")}
	for line := range strings.Lines(rest) {
		if fields := strings.Fields(line); fields[0] == "dep" {
			modules = append(modules, fields[1]+"@"+fields[2])
		}
	}
	slices.Sort(modules)
	return modules
}

func TestLicenses(t *testing.T) {
	gorootLicense := read(t, "../..", "LICENSE")
	for name, test := range map[string]struct {
		texts []file
		want  string
	}{
		"Apache": {[]file{{name: "LICENSE", data: gorootLicense}}, "Apache-2.0"},
		"wrapped": {[]file{{name: "LICENSE", data: []byte("// Permission is hereby granted, free\n// of charge, " +
			"to any person obtaining a\n// copy")}}, "MIT"},
		"two files": {[]file{{name: "LICENSE", data: gorootLicense},
			{name: "LICENSE.MIT",
				data: []byte("Permission is hereby granted, free of charge, to any person obtaining a copy")}},
			"Apache-2.0 AND MIT"},
		"notice": {[]file{{name: "LICENSE", data: gorootLicense}, {name: "NOTICE", data: []byte("thanks")}},
			"Apache-2.0"},
		"unknown": {[]file{{name: "LICENSE", data: []byte("all rights reserved")}}, "read it"},
		"unknown added": {[]file{{name: "LICENSE", data: gorootLicense},
			{name: "LICENSE.more", data: []byte("all rights reserved")}}, "read it"},
		"none": {nil, "no license file"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := licenseOf(test.texts)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, test.want) || err == nil && got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}
