package images

import (
	"context"
	"os"
	"path/filepath"
	"runtime"

	"github.com/secretmanager-io/secretmanager/test/e2e/engine"
	"github.com/secretmanager-io/secretmanager/test/e2e/step"
)

const (
	product        = "secretmanager:e2e"
	productVersion = "v0.0.0-e2e"
)

// inProduct are the programs in the product's image.
var inProduct = []string{"secretmanager-provider", "secretmanager-rotator"}

// hasProduct reports whether the repository has all the programs of the image.
func hasProduct(root string) bool {
	for _, name := range inProduct {
		if _, err := os.Stat(filepath.Join(root, "cmd", name, "main.go")); err != nil {
			return false
		}
	}
	return true
}

// buildProduct builds the product's image from the repository's Dockerfile. If the base
// image cannot be pulled, it builds the image of a release, which needs none.
func buildProduct(ctx context.Context, docker *engine.Engine, root string, source Source) error {
	if source == Pull {
		return docker.Build(ctx, root, product, "--build-arg", "VERSION="+productVersion)
	}
	dist, err := os.MkdirTemp("", "secretmanager-e2e-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dist)
	archive, err := release(ctx, root, dist, "linux/"+runtime.GOARCH)
	if err != nil {
		return err
	}
	if _, err := docker.Run(ctx, "load", "--quiet", "--input", archive); err != nil {
		return err
	}
	_, err = docker.Run(ctx, "tag", "secretmanager:"+productVersion+"-"+runtime.GOARCH, product)
	return err
}

// release makes the image of a release in the directory dist, and returns the path of its archive.
func release(ctx context.Context, root, dist, platforms string) (string, error) {
	cmd := step.Command(ctx, "go", "run", ".", "-root", root, "-out", dist, "-image-only", "-platforms", platforms,
		"-version", productVersion, "-commit", "e2e", "-date", "1700000000")
	cmd.Dir = filepath.Join(root, "tools", "release")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	_, err := step.Run(cmd)
	return filepath.Join(dist, "secretmanager-image_"+productVersion+".tar"), err
}
