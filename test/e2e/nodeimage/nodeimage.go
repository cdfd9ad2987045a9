// Package nodeimage builds the image of a kind node if it cannot be pulled from a registry: from Debian packages
// (containerd, systemd, CNI plugins), kind's own node files, and the programs of Kubernetes built from source. The
// control plane's images are built in the same way and imported into the node's containerd beforehand, under the names
// that kubeadm requests. The tag of the image is a hash of its inputs, and the image stays in the Docker engine, so it
// is built once. The root file system stays in .cache/.
package nodeimage

import (
	"context"
	"embed"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/secretmanager-io/secretmanager/test/e2e/engine"
	"github.com/secretmanager-io/secretmanager/test/e2e/inputs"
	"github.com/secretmanager-io/secretmanager/test/e2e/step"
	"github.com/secretmanager-io/secretmanager/test/programs"
)

// repository is the beginning of the images' names. The version of Kubernetes follows.
const repository = "secretmanager-e2e-node-"

// pausePlaceholder stands for the image of the sandboxes in containerd's configuration.
const pausePlaceholder = "PAUSE_IMAGE"

//go:embed Dockerfile import-images all:files
var embedded embed.FS

// modules have the programs of a node that do not belong to Kubernetes.
var modules = []string{"test/pause", "test/etcd", "test/coredns", "test/kind"}

// onNode are the programs in the node's file system. The other programs of the control plane run from images, which
// kubeadm names.
var onNode = []string{"kubeadm", "kubelet", "kubectl"}

// Ensure returns the name of the node image, and builds it if the engine does not have it. root is the directory of the
// repository.
func Ensure(ctx context.Context, docker *engine.Engine, root string) (string, error) {
	version, err := programs.Kubernetes.Selected()
	if err != nil {
		return "", err
	}
	key, err := inputsKey(root, version)
	if err != nil {
		return "", fmt.Errorf("hashing what the node image is made from: %w", err)
	}
	image := repository + version.Name + ":" + key
	if docker.HasImage(ctx, image) {
		return image, nil
	}
	cache := filepath.Join(root, ".cache", "nodeimage")
	base, err := rootFileSystem(ctx, cache)
	if err != nil {
		return "", err
	}
	b := &build{docker: docker, root: root, dir: filepath.Join(cache, "build"), base: base, image: image}
	defer os.RemoveAll(b.dir)
	if err := b.layOut(ctx); err != nil {
		return "", fmt.Errorf("laying out the node image: %w", err)
	}
	if err := step.Do(ctx, "building the control plane's images", b.buildControlPlane); err != nil {
		return "", err
	}
	if err := step.Do(ctx, "building the node image", b.buildNode); err != nil {
		return "", err
	}
	b.removeOthers(ctx)
	return image, nil
}

// inputsKey returns the hash of the image's inputs in the repository, so that no build is needed to find out whether
// the image exists.
func inputsKey(root string, version programs.Version) (string, error) {
	h := inputs.New()
	h.Add("root file system", []byte(strings.Join(rootFileSystemCommand("OUT", nil), " ")))
	if err := h.AddFS(embedded); err != nil {
		return "", err
	}
	for _, module := range append([]string{version.Dir}, modules...) {
		if err := h.AddModule(filepath.Join(root, module)); err != nil {
			return "", err
		}
	}
	return h.Key(), nil
}

// build is one build of the image, in a directory that is removed afterwards.
type build struct {
	docker       *engine.Engine
	root         string
	dir, base    string
	image        string
	controlPlane map[string]string // image by the name of its program
}

// layOut writes the build context of the Dockerfile.
func (b *build) layOut(ctx context.Context) error {
	if err := os.RemoveAll(b.dir); err != nil {
		return err
	}
	if err := os.CopyFS(b.dir, embedded); err != nil {
		return err
	}
	if err := inputs.Link(b.base, filepath.Join(b.dir, "base.tar")); err != nil {
		return err
	}
	kind, err := inputs.ModuleDir(ctx, filepath.Join(b.root, "test", "kind"), "sigs.k8s.io/kind")
	if err != nil {
		return err
	}
	files := os.DirFS(filepath.Join(kind, "images", "base", "files"))
	if err := os.CopyFS(filepath.Join(b.dir, "kind"), files); err != nil {
		return fmt.Errorf("copying kind's node files: %w", err)
	}

	for _, name := range onNode {
		if err := b.program(ctx, name); err != nil {
			return err
		}
	}
	kubeadm := filepath.Join(b.dir, "bin", "kubeadm")
	version, err := step.Run(step.Command(ctx, kubeadm, "version", "-o", "short"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "version"), []byte(version), 0o644); err != nil {
		return err
	}
	list, err := step.Run(step.Command(ctx, kubeadm, "config", "images", "list", "--kubernetes-version", version))
	if err != nil {
		return err
	}
	b.controlPlane = map[string]string{}
	for _, image := range strings.Fields(list) {
		name, _, _ := strings.Cut(path.Base(image), ":")
		if err := b.program(ctx, name); err != nil {
			return err
		}
		b.controlPlane[name] = image
	}
	return b.setPauseImage()
}

// setPauseImage writes the image that kubeadm names to containerd's configuration.
func (b *build) setPauseImage() error {
	file := filepath.Join(b.dir, "files", "etc", "containerd", "config.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if b.controlPlane["pause"] == "" || !strings.Contains(string(text), pausePlaceholder) {
		return fmt.Errorf("kubeadm names no image of pause, or %s does not mention %s", file, pausePlaceholder)
	}
	return os.WriteFile(file, []byte(strings.ReplaceAll(string(text), pausePlaceholder, b.controlPlane["pause"])), 0o644)
}

// program copies the program to the build context.
func (b *build) program(ctx context.Context, name string) error {
	from, err := programs.Path(ctx, name)
	if err != nil {
		return err
	}
	return inputs.Link(from, filepath.Join(b.dir, "bin", name))
}

// buildControlPlane builds the control plane's images into one tar file.
func (b *build) buildControlPlane(ctx context.Context) error {
	save := []string{"save", "--output", filepath.Join(b.dir, "images.tar")}
	for name, image := range b.controlPlane {
		if err := b.docker.Build(ctx, b.dir, image, "--target", name); err != nil {
			return err
		}
		save = append(save, image)
	}
	_, err := b.docker.Run(ctx, save...)
	return err
}

func (b *build) buildNode(ctx context.Context) error {
	return b.docker.Build(ctx, b.dir, b.image, "--target", "node")
}

// removeOthers removes images that are no longer needed from the engine: the control plane's images, and older node
// images with the same version of Kubernetes. It ignores errors.
func (b *build) removeOthers(ctx context.Context) {
	remove := []string{"image", "rm"}
	for _, image := range b.controlPlane {
		remove = append(remove, image)
	}
	name, _, _ := strings.Cut(b.image, ":")
	nodes, _ := b.docker.Run(ctx, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name)
	for image := range strings.FieldsSeq(nodes) {
		if image != b.image {
			remove = append(remove, image)
		}
	}
	if _, err := b.docker.Run(ctx, remove...); err != nil {
		step.Logf("old images stay: %v", err)
	}
}
