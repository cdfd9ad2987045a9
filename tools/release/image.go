package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const source = "https://github.com/secretmanager-io/secretmanager"

// inImage are the programs that run in a cluster.
var inImage = []string{"secretmanager-provider", "secretmanager-rotator"}

// labels returns the OCI annotations of the image. The Dockerfile has the same.
func (r *release) labels() map[string]string {
	return map[string]string{
		v1.AnnotationTitle:         "SecretManager",
		v1.AnnotationDescription:   "Provider and rotator: Kubernetes Secrets that hold only Vault transit ciphertext",
		v1.AnnotationSource:        source,
		v1.AnnotationDocumentation: source + "/tree/main/docs",
		v1.AnnotationLicenses:      "Apache-2.0",
		v1.AnnotationVersion:       r.version,
		v1.AnnotationRevision:      r.commit,
		v1.AnnotationCreated:       r.date.Format(time.RFC3339),
	}
}

// runtimeConfig is how a container starts. The Dockerfile has the same.
func (r *release) runtimeConfig() v1.ImageConfig {
	return v1.ImageConfig{
		User:   "65532:65532",
		Env:    []string{"PATH=/bin"},
		Cmd:    []string{"/bin/secretmanager-provider"},
		Labels: r.labels(),
	}
}

// imageFiles returns the files of the image and the modules of its programs: static
// binaries, CA roots and licenses; no shell, no package manager, no libc.
func (r *release) imageFiles(ctx context.Context, p platform) ([]file, *linked, error) {
	paths, err := r.build(ctx, p, inImage...)
	if err != nil {
		return nil, nil, err
	}
	linked, err := r.linked(ctx, paths)
	if err != nil {
		return nil, nil, err
	}
	certificates, err := roots()
	if err != nil {
		return nil, nil, err
	}
	license, err := os.ReadFile(filepath.Join(r.root, "LICENSE"))
	if err != nil {
		return nil, nil, err
	}
	files := []file{
		{"etc/ssl/certs/ca-certificates.crt", 0o644, certificates},
		{"licenses/LICENSE", 0o644, license},
		{"licenses/THIRD-PARTY-NOTICES.txt", 0o644, linked.notices()},
	}
	for i, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, file{"bin/" + inImage[i], 0o755, data})
	}
	return files, linked, nil
}

// layOut writes the files of the image below the directory, for the Dockerfile.
func (r *release) layOut(ctx context.Context, dir string) error {
	linux := r.linux()
	if len(linux) != 1 || len(r.platforms) != 1 {
		return fmt.Errorf("-rootfs requires one platform with Linux, got %v", r.platforms)
	}
	files, _, err := r.imageFiles(ctx, linux[0])
	if err != nil {
		return err
	}
	return writeAll(dir, files)
}

// image makes an OCI archive of the image for all its platforms. For `docker load`,
// the archive also has Docker's manifest.json.
func (r *release) image(ctx context.Context, d *dist) error {
	if len(r.linux()) == 0 {
		return nil
	}
	b := blobs{}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex,
		Annotations: r.labels()}
	type loaded struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var docker []loaded
	for _, p := range r.linux() {
		files, linked, err := r.imageFiles(ctx, p)
		if err != nil {
			return err
		}
		manifest, config, layer, err := r.manifest(b, p, files)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, manifest)
		docker = append(docker, loaded{blobPath(config), []string{r.name() + ":" + r.version + "-" + p.arch},
			[]string{blobPath(layer)}})

		name := fmt.Sprintf("%s-image_%s_%s_%s", r.name(), r.version, p.os, p.arch)
		bom, err := r.bom(cyclonedx.ComponentTypeContainer, name, manifest.Digest.Encoded(), linked)
		if err != nil {
			return err
		}
		if err := d.write(name+".cdx.json", bom); err != nil {
			return err
		}
	}
	top, err := b.add(v1.MediaTypeImageIndex, index)
	if err != nil {
		return err
	}
	entry := top
	entry.Annotations = map[string]string{v1.AnnotationRefName: r.version}
	for name, value := range map[string]any{
		v1.ImageIndexFile: v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex,
			Manifests: []v1.Descriptor{entry}},
		v1.ImageLayoutFile: v1.ImageLayout{Version: v1.ImageLayoutVersion},
		"manifest.json":    docker,
	} {
		if b[name], err = json.Marshal(value); err != nil {
			return err
		}
	}
	var files []file
	for name, data := range b {
		files = append(files, file{name, 0o644, data})
	}
	archive, err := tarOf(files, r.date, true)
	if err != nil {
		return err
	}
	name := r.name() + "-image_" + r.version
	if err := d.write(name+".digest", []byte(top.Digest+"\n")); err != nil {
		return err
	}
	return d.write(name+".tar", archive)
}

// manifest adds the image of a platform to the blobs.
func (r *release) manifest(b blobs, p platform, files []file) (manifest, config, layer v1.Descriptor, err error) {
	unpacked, err := tarOf(files, r.date, true)
	if err != nil {
		return
	}
	packed, err := gzipOf(unpacked)
	if err != nil {
		return
	}
	layer = b.addRaw(v1.MediaTypeImageLayerGzip, packed)
	of := v1.Platform{OS: p.os, Architecture: p.arch}
	if p.arch == "arm64" {
		of.Variant = "v8"
	}
	config, err = b.add(v1.MediaTypeImageConfig, v1.Image{
		Created: &r.date, Platform: of, Config: r.runtimeConfig(),
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(unpacked)}},
		History: []v1.History{{Created: &r.date, CreatedBy: "make release", Comment: "static programs, CA roots, licenses"}},
	})
	if err != nil {
		return
	}
	manifest, err = b.add(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: config, Layers: []v1.Descriptor{layer}, Annotations: r.labels(),
	})
	manifest.Platform = &of
	return
}

// blobs is the content of an OCI layout, by path.
type blobs map[string][]byte

func (b blobs) add(mediaType string, value any) (v1.Descriptor, error) {
	data, err := json.Marshal(value)
	return b.addRaw(mediaType, data), err
}

func (b blobs) addRaw(mediaType string, data []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	b[blobPath(d)] = data
	return d
}

func blobPath(d v1.Descriptor) string {
	return "blobs/" + d.Digest.Algorithm().String() + "/" + d.Digest.Encoded()
}
