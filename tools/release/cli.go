package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

const cli = "secretmanager"

// completions are the scripts of the shells, by the name that each shell looks for.
var completions = map[string]string{
	"bash": "secretmanager.bash", "zsh": "_secretmanager", "fish": "secretmanager.fish", "powershell": "secretmanager.ps1",
}

// archives makes an archive of the CLI for each platform, and the manifest for krew.
func (r *release) archives(ctx context.Context, d *dist) error {
	common, err := r.commonFiles(ctx)
	if err != nil {
		return err
	}
	var packed []plugin
	for _, p := range r.platforms {
		name, err := r.archive(ctx, d, p, common)
		if err != nil {
			return err
		}
		packed = append(packed, plugin{platform: p, archive: name, sha256: d.hashes[name]})
	}
	if r.fips { // krew has only one plugin of each name
		return nil
	}
	manifest, err := krew(r.version, packed)
	if err != nil {
		return err
	}
	return d.write("secretmanager.yaml", manifest)
}

// commonFiles returns the files that are in the archives of all platforms.
func (r *release) commonFiles(ctx context.Context) ([]file, error) {
	var files []file
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		data, err := os.ReadFile(filepath.Join(r.root, name))
		if err != nil {
			return nil, err
		}
		files = append(files, file{name, 0o644, data})
	}
	here := platform{runtime.GOOS, runtime.GOARCH}
	paths, err := r.build(ctx, here, cli)
	if err != nil {
		return nil, err
	}
	for shell, name := range completions {
		script, err := command(ctx, paths[0], "completion", shell)
		if err != nil {
			return nil, err
		}
		files = append(files, file{"completions/" + name, 0o644, script})
	}
	return files, nil
}

func (r *release) archive(ctx context.Context, d *dist, p platform, common []file) (string, error) {
	paths, err := r.build(ctx, p, cli)
	if err != nil {
		return "", err
	}
	linked, err := r.linked(ctx, paths)
	if err != nil {
		return "", err
	}
	program, err := os.ReadFile(paths[0])
	if err != nil {
		return "", err
	}
	files := append([]file{{cli + p.exe(), 0o755, program}, {"THIRD-PARTY-NOTICES.txt", 0o644, linked.notices()}},
		common...)

	name := fmt.Sprintf("%s_%s_%s_%s", r.name(), r.version, p.os, p.arch)
	ending, pack := ".tar.gz", func() ([]byte, error) {
		data, err := tarOf(files, r.date, false)
		if err != nil {
			return nil, err
		}
		return gzipOf(data)
	}
	if p.os == "windows" {
		ending, pack = ".zip", func() ([]byte, error) { return zipOf(files, r.date) }
	}
	data, err := pack()
	if err != nil {
		return "", err
	}
	bom, err := r.bom(cyclonedx.ComponentTypeApplication, name+ending, hash(data), linked)
	if err != nil {
		return "", err
	}
	if err := d.write(name+".cdx.json", bom); err != nil {
		return "", err
	}
	return name + ending, d.write(name+ending, data)
}
