package main

import (
	"bytes"
	"strings"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

// bom returns the bill of materials of a published file in CycloneDX JSON: its
// programs, and the modules linked into each.
func (r *release) bom(kind cyclonedx.ComponentType, name, sha256 string, l *linked) ([]byte, error) {
	sum := func(hex string) *[]cyclonedx.Hash {
		return &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex}}
	}
	ours := cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}}
	product := cyclonedx.Component{
		BOMRef: name, Type: kind, Name: name, Version: r.version, Hashes: sum(sha256), Licenses: &ours,
	}
	var components []cyclonedx.Component
	var dependencies []cyclonedx.Dependency
	depends := func(ref string, on []string) {
		dependencies = append(dependencies, cyclonedx.Dependency{Ref: ref, Dependencies: &on})
	}
	var programs []string
	for _, p := range l.programs {
		components = append(components, cyclonedx.Component{
			BOMRef: p.name, Type: cyclonedx.ComponentTypeApplication, Name: p.name, Version: r.version,
			PackageURL: purl("github.com/secretmanager-io/secretmanager", r.version) + "#cmd/" + p.name,
			Hashes:     sum(p.sha256), Licenses: &ours,
			Properties: &[]cyclonedx.Property{{Name: "secretmanager:commit", Value: r.commit}},
		})
		programs = append(programs, p.name)
		depends(p.name, p.modules)
	}
	depends(name, programs)
	for _, m := range l.modules {
		components = append(components, cyclonedx.Component{
			BOMRef: m.key(), Type: cyclonedx.ComponentTypeLibrary, Name: m.path, Version: m.version,
			PackageURL: purl(m.path, m.version), Licenses: spdx(m.license),
		})
	}
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Timestamp: r.date.Format(time.RFC3339), Component: &product}
	bom.Components, bom.Dependencies = &components, &dependencies
	var b bytes.Buffer
	err := cyclonedx.NewBOMEncoder(&b, cyclonedx.BOMFileFormatJSON).SetPretty(true).
		EncodeVersion(bom, cyclonedx.SpecVersion1_6)
	return b.Bytes(), err
}

func spdx(license string) *cyclonedx.Licenses {
	if strings.Contains(license, " ") {
		return &cyclonedx.Licenses{{Expression: license}}
	}
	return &cyclonedx.Licenses{{License: &cyclonedx.License{ID: license}}}
}

// purl returns the package URL with which scanners find the module.
func purl(path, version string) string {
	return "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
}
