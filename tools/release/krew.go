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

// krew returns the manifest of the plugin. Its shape is that of krew's package
// pkg/index, which the test reads it with; that package itself would bring
// Kubernetes' libraries in, and empty fields.
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
they are encrypted with, and renews key and ciphertext. Pods get the plaintext
through the Secrets Store CSI driver and the provider of the same project.
`,
			"caveats": `Vault is reached as the vault command does it: VAULT_ADDR, VAULT_TOKEN and the
like. "kubectl secretmanager doctor" says what is missing.
`,
			"platforms": platforms,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("writing the manifest for krew: %w", err)
	}
	return manifest, nil
}
