package main

import (
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// The budgets of docs/performance.md.
const (
	maxProvider = 25_000_000
	maxImage    = 60_000_000
)

func decode[T any](t *testing.T, data []byte) (v T) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return v
}

// image reads the archive as a client of a registry does: from the layout, each
// blob by its digest.
func image(t *testing.T) (config v1.Image, files map[string]file, names []string) {
	t.Helper()
	dir := released(t)
	layout, _ := unpack(t, read(t, dir, "secretmanager-image_"+testVersion+".tar"))
	used := map[string]bool{"blobs/": true, "blobs/sha256/": true, "oci-layout": true, "index.json": true,
		"manifest.json": true}
	blob := func(d v1.Descriptor, mediaType string) []byte {
		t.Helper()
		data := layout[blobPath(d)].data
		used[blobPath(d)] = true
		if d.MediaType != mediaType || int64(len(data)) != d.Size || digest.FromBytes(data) != d.Digest {
			t.Fatalf("%s: %s of %d bytes does not fit %d bytes", d.Digest, d.MediaType, d.Size, len(data))
		}
		return data
	}
	if got := decode[v1.ImageLayout](t, layout["oci-layout"].data); got.Version != "1.0.0" {
		t.Errorf("layout %v", got)
	}
	entries := decode[v1.Index](t, layout["index.json"].data).Manifests
	if len(entries) != 1 || entries[0].Annotations[v1.AnnotationRefName] != testVersion {
		t.Fatalf("entries %v", entries)
	}
	if got := string(read(t, dir, "secretmanager-image_"+testVersion+".digest")); got != entries[0].Digest.String()+"\n" {
		t.Errorf("the file with the digest contains %q, want %s", got, entries[0].Digest)
	}
	index := decode[v1.Index](t, blob(entries[0], v1.MediaTypeImageIndex))
	if len(index.Manifests) != 1 || index.Manifests[0].Platform.OS != "linux" ||
		index.Manifests[0].Platform.Architecture != here.arch {
		t.Fatalf("manifests %v", index.Manifests)
	}
	manifest := decode[v1.Manifest](t, blob(index.Manifests[0], v1.MediaTypeImageManifest))
	config = decode[v1.Image](t, blob(manifest.Config, v1.MediaTypeImageConfig))
	if len(manifest.Layers) != 1 || len(config.RootFS.DiffIDs) != 1 {
		t.Fatalf("layers %v, unpacked %v", manifest.Layers, config.RootFS.DiffIDs)
	}
	files, names = unpack(t, blob(manifest.Layers[0], v1.MediaTypeImageLayerGzip))
	for name := range layout {
		if !used[name] {
			t.Errorf("nothing refers to %s in the archive", name)
		}
	}
	docker := decode[[]struct {
		Config           string
		RepoTags, Layers []string
	}](t, layout["manifest.json"].data)
	if len(docker) != 1 || docker[0].Config != blobPath(manifest.Config) ||
		!slices.Equal(docker[0].Layers, []string{blobPath(manifest.Layers[0])}) ||
		!slices.Equal(docker[0].RepoTags, []string{"secretmanager:" + testVersion + "-" + here.arch}) {
		t.Errorf("for Docker: %v", docker)
	}
	return config, files, names
}

func TestImage(t *testing.T) {
	config, files, names := image(t)
	want := []string{
		"bin/", "bin/secretmanager-provider", "bin/secretmanager-rotator", "etc/", "etc/ssl/", "etc/ssl/certs/",
		"etc/ssl/certs/ca-certificates.crt",
		"licenses/", "licenses/LICENSE", "licenses/THIRD-PARTY-NOTICES.txt",
	}
	if diff := cmp.Diff(want, names); diff != "" { // so there is no shell
		t.Errorf("files, -want +got:\n%s", diff)
	}
	if config.OS != "linux" || config.Architecture != here.arch || config.Config.User != "65532:65532" ||
		config.Created.Unix() != 1700000000 {
		t.Errorf("config %+v", config)
	}
	size := 0
	for _, name := range inImage {
		f := files["bin/"+name]
		size += len(f.data)
		checkStatic(t, name, f.data)
		checkVersionOf(t, f, name)
	}
	if n := len(files["bin/secretmanager-provider"].data); n > maxProvider {
		t.Errorf("the provider has %d bytes", n)
	}
	if size > maxImage {
		t.Errorf("the programs have %d bytes", size)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(files["etc/ssl/certs/ca-certificates.crt"].data) {
		t.Error("there are no CA roots")
	}
	if n := bytes.Count(files["etc/ssl/certs/ca-certificates.crt"].data, []byte("-----BEGIN")); n < 100 {
		t.Errorf("only %d CA roots", n)
	}
}

// checkStatic checks that the program needs no loader and no libraries.
func checkStatic(t *testing.T, name string, data []byte) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[here.arch]; f.Machine != want {
		t.Errorf("%s is for %v, want %v", name, f.Machine, want)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is not static: it has %v", name, p.Type)
		}
	}
}

// instruction matches an instruction of a Dockerfile after its lines have been joined.
var instruction = regexp.MustCompile(`(?m)^([A-Z]+) (.+)$`)

// dockerfile returns the instructions of the Dockerfile, stage by stage.
func dockerfile(t *testing.T) (stages [][][2]string) {
	t.Helper()
	text := regexp.MustCompile(`\\\n\s*`).ReplaceAllString(string(read(t, "../..", "Dockerfile")), "")
	for _, m := range instruction.FindAllStringSubmatch(text, -1) {
		if m[1] == "FROM" {
			stages = append(stages, nil)
		}
		stages[len(stages)-1] = append(stages[len(stages)-1], [2]string{m[1], m[2]})
	}
	return stages
}

// TestDockerfile checks that the Dockerfile has the configuration and labels of the released image.
func TestDockerfile(t *testing.T) {
	r := &release{version: "$VERSION", commit: "$COMMIT"}
	want := r.runtimeConfig()
	want.Labels[v1.AnnotationCreated] = "$CREATED"
	got := v1.ImageConfig{Labels: map[string]string{}}
	stages := dockerfile(t)
	for _, i := range stages[len(stages)-1] {
		switch i[0] {
		case "USER":
			got.User = i[1]
		case "ENV":
			got.Env = append(got.Env, i[1])
		case "CMD":
			got.Cmd = decode[[]string](t, []byte(i[1]))
		case "LABEL":
			for _, m := range regexp.MustCompile(`([\w.]+)="([^"]*)"`).FindAllStringSubmatch(i[1], -1) {
				got.Labels[m[1]] = m[2]
			}
		case "COPY":
			if i[1] != "--from=build /out/ /" {
				t.Errorf("COPY %s", i[1])
			}
		case "FROM":
			if i[1] != "scratch" {
				t.Errorf("it begins with %s", i[1])
			}
		case "ARG":
		default:
			t.Errorf("%s %s has no counterpart in the released image", i[0], i[1])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-release +Dockerfile:\n%s", diff)
	}
}

// TestDockerfileMakesTheSameFiles runs the Dockerfile's last command on the files that
// .dockerignore includes.
func TestDockerfileMakesTheSameFiles(t *testing.T) {
	ignore := strings.Split(strings.TrimSpace(string(read(t, "../..", ".dockerignore"))), "\n")
	if ignore[0] != "*" {
		t.Fatalf("the first line of .dockerignore is %q, which does not exclude everything", ignore[0])
	}
	dir := filepath.Join(t.TempDir(), "src")
	copyRepository(t, dir, func(name string) bool {
		return slices.ContainsFunc(ignore[1:], func(line string) bool {
			pattern := strings.TrimPrefix(line, "!")
			// A pattern matches a file, or a directory with all that is in it.
			for name := name; name != "."; name = path.Dir(name) {
				if matched, err := path.Match(pattern, name); err == nil && matched {
					return true
				}
			}
			return false
		})
	})
	var command string
	for _, i := range dockerfile(t)[0] {
		if i[0] == "RUN" {
			command = i[1]
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", strings.ReplaceAll(command, "/out", out))
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "TARGETOS="+here.os, "TARGETARCH="+here.arch, "VERSION="+testVersion,
		"COMMIT="+testCommit)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	_, files, _ := image(t)
	for name, f := range files {
		if f.mode.IsDir() {
			continue
		}
		if !bytes.Equal(read(t, out, name), f.data) {
			t.Errorf("%s differs", name)
		}
	}
}
