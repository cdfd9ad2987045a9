package main

import (
	"fmt"

	"sigs.k8s.io/yaml"
)

// download is where the archives of a version are published.
const download = "https://github.com/secretmanager-io/secretmanager/releases/download/"

// plugin is an archive as krew installs it.
type plugin struct {
	platform
	archive, sha256 string
}

// krew returns the manifest of the plugin. The test parses it with krew's package
// pkg/index. That package is not used here, because it would add the libraries of
// Kubernetes, and empty fields.
func krew(version string, plugins []plugin) ([]byte, error) {
	type object = map[string]any
	var platforms []object
	for _, p := range plugins {
		platforms = append(platforms, object{
			"selector": object{"matchLabels": object{"os": p.os, "arch": p.arch}},
			"uri":      download + version + "/" + p.archive,
			"sha256":   p.sha256,
			"bin":      cli + p.exe(),
		})
	}
	manifest, err := yaml.Marshal(object{
		"apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
		"kind":       "Plugin",
		"metadata":   object{"name": cli},
		"spec": object{
			"version":          version,
			"homepage":         source,
			"shortDescription": "Keep Secrets as Vault transit ciphertext",
			"description": `Writes Kubernetes Secrets that hold only Vault transit ciphertext, shows what
they are encrypted with, and rotates and rewraps. Pods get the plaintext
through the Secrets Store CSI driver and the provider of the same project.
`,
			"caveats": `The plugin uses the environment variables of the vault command, such as VAULT_ADDR
and VAULT_TOKEN. "kubectl secretmanager doctor" reports what is missing.
`,
			"platforms": platforms,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("writing the manifest for krew: %w", err)
	}
	return manifest, nil
}
