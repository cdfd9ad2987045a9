// Package images provides the container images of the test cluster, from one of two
// sources:
//
//   - pull: kind's stock node image, the released driver, the stock Vault. This is
//     what users run.
//   - build: the same programs, built from source, in images without a base image.
//     This needs no registry.
//
// The image of the product is built from the repository either way.
package images

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/secretmanager-io/secretmanager/test/e2e/engine"
	"github.com/secretmanager-io/secretmanager/test/e2e/inputs"
	"github.com/secretmanager-io/secretmanager/test/e2e/nodeimage"
	"github.com/secretmanager-io/secretmanager/test/e2e/step"
	"github.com/secretmanager-io/secretmanager/test/programs"
)

// A Source is the source of images.
type Source string

// Sources of images.
const (
	Auto  Source = "auto"  // pull if possible, otherwise build
	Pull  Source = "pull"  // from public registries
	Build Source = "build" // from packages and sources
)

// A Set is the images of one cluster.
type Set struct {
	Source Source // Pull or Build
	// Node is the image of a kind node. Default: kind's own.
	Node string
	// Driver has the driver and its registrar. Default: the image in the driver's
	// manifest.
	Driver string
	Vault  string
	App    string // a shell and the usual tools, for pods of tests
	// Product has the provider and the rotator. Empty if the repository has no programs
	// for it.
	Product string
	// ProductID identifies the content of Product, which its name does not.
	ProductID string
	// Load are the images that are in the Docker engine and must be loaded into the node.
	Load []string
}

// StockApp is the image of the pods in docs/getting-started.md. If images are built, the
// node has [Set.App] also under this name.
const StockApp = "busybox:1.37"

const (
	stockVault = "hashicorp/vault:1.21"

	// pullLimit bounds the first, small pull. After it, pulling counts as impossible.
	pullLimit = 45 * time.Second
)

// prefix is the prefix of the names of built images, except the product's.
const prefix = "secretmanager-e2e-"

//go:embed Dockerfile
var dockerfile embed.FS

// Ensure returns the images from the source. root is the directory of the repository.
func Ensure(ctx context.Context, docker *engine.Engine, source Source, root string) (*Set, error) {
	pull, err := canPullImages(ctx, docker, source)
	if err != nil {
		return nil, err
	}
	var s *Set
	if pull {
		s = &Set{Source: Pull, Vault: stockVault, App: StockApp, Load: []string{StockApp}}
	} else if s, err = buildSet(ctx, docker, root); err != nil {
		return nil, err
	}
	if !hasProduct(root) {
		return s, nil
	}
	err = step.Do(ctx, "building the image "+product, func(ctx context.Context) error {
		return buildProduct(ctx, docker, root, s.Source)
	})
	if err != nil {
		return nil, err
	}
	if s.ProductID, err = docker.Run(ctx, "image", "inspect", "--format", "{{.Id}}", product); err != nil {
		return nil, err
	}
	s.Product = product
	s.Load = append(s.Load, product)
	return s, nil
}

// canPullImages reports whether images are pulled.
func canPullImages(ctx context.Context, docker *engine.Engine, source Source) (bool, error) {
	switch source {
	case Build:
		return false, nil
	case Pull, Auto, "":
		works := docker.HasImage(ctx, StockApp) || docker.CanPull(ctx, StockApp, pullLimit)
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if !works && source == Pull {
			return false, fmt.Errorf("images are to be pulled, but Docker cannot pull %s", StockApp)
		}
		if !works {
			step.Logf("Docker cannot pull images here; they are built from packages and sources")
		}
		return works, nil
	}
	return false, fmt.Errorf("images can come from %s, %s or %s, not from %q", Pull, Build, Auto, source)
}

// buildSet builds a set of images.
func buildSet(ctx context.Context, docker *engine.Engine, root string) (*Set, error) {
	if runtime.GOOS != "linux" {
		return nil,
			fmt.Errorf("images cannot be pulled, and building them takes Linux, since programs are built for the " +
				"machine at hand")
	}
	node, err := nodeimage.Ensure(ctx, docker, root)
	if err != nil {
		return nil, err
	}
	driver, err := programs.Driver.Selected()
	if err != nil {
		return nil, err
	}
	s := &Set{Source: Build, Node: node}
	for _, image := range []struct {
		target  string
		modules []string
		content []string
		name    *string
	}{
		{"app", nil, nil, &s.App},
		{"driver", []string{driver.Dir, "test/driver/mlog", "test/registrar"},
			[]string{"secrets-store-csi-driver", "node-driver-registrar"}, &s.Driver},
		{"vault", []string{"test/vault"}, []string{"vault"}, &s.Vault},
	} {
		*image.name, err = ensure(ctx, docker, root, image.target, image.modules, image.content)
		if err != nil {
			return nil, fmt.Errorf("the image for %s: %w", image.target, err)
		}
		s.Load = append(s.Load, *image.name)
	}
	return s, nil
}

// ensure returns the name of the image of the Dockerfile's target with the programs of the
// modules. It builds the image if the engine does not have it.
func ensure(ctx context.Context, docker *engine.Engine, root, target string, modules, names []string) (string, error) {
	h := inputs.New()
	if err := h.AddFS(dockerfile); err != nil {
		return "", err
	}
	for _, module := range modules {
		if err := h.AddModule(filepath.Join(root, module)); err != nil {
			return "", err
		}
	}
	image := prefix + target + ":" + h.Key()
	if docker.HasImage(ctx, image) {
		return image, nil
	}

	dir, err := os.MkdirTemp("", "secretmanager-e2e-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, dockerfile); err != nil {
		return "", err
	}
	box, err := busybox(ctx)
	if err != nil {
		return "", err
	}
	files := map[string]string{"busybox": box}
	for _, name := range names {
		if files[name], err = programs.Path(ctx, name); err != nil {
			return "", err
		}
	}
	for name, from := range files {
		if err := inputs.Link(from, filepath.Join(dir, "bin", name)); err != nil {
			return "", err
		}
	}
	return image, step.Do(ctx, "building the image "+image, func(ctx context.Context) error {
		return docker.Build(ctx, dir, image, "--target", target)
	})
}

// busybox returns the path of a static busybox.
func busybox(ctx context.Context) (string, error) {
	const path = "/bin/busybox"
	for try := 0; ; try++ {
		// Debian's package busybox, as opposed to busybox-static, depends on libraries.
		cmd := exec.CommandContext(ctx, "ldd", path)
		if _, err := os.Stat(path); err == nil && cmd.Run() != nil {
			return path, nil
		}
		if try > 0 {
			return "", fmt.Errorf("%s is not a static program", path)
		}
		if err := step.Install(ctx, "a static busybox", "busybox-static"); err != nil {
			return "", err
		}
	}
}

// Remove removes all images that this package built from the engine.
func Remove(ctx context.Context, docker *engine.Engine) error {
	list, err := docker.Run(ctx, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
	if err != nil {
		return err
	}
	remove := []string{"image", "rm"}
	for image := range strings.FieldsSeq(list) {
		if strings.HasPrefix(image, prefix) || image == product {
			remove = append(remove, image)
		}
	}
	if len(remove) == 2 {
		return nil
	}
	return step.Do(ctx, "removing images", func(ctx context.Context) error {
		_, err := docker.Run(ctx, remove...)
		return err
	})
}
