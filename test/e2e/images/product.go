package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/secretmanager-io/secretmanager/test/e2e/engine"
	"github.com/secretmanager-io/secretmanager/test/e2e/inputs"
	"github.com/secretmanager-io/secretmanager/test/e2e/step"
)

const product = "secretmanager:e2e"

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

// buildProduct builds the product's image from the repository's Dockerfile. Where
// no base image can be pulled, the programs are compiled here and not in a container.
func buildProduct(ctx context.Context, docker *engine.Engine, root string, source Source) error {
	args := []string{"--build-arg", "VERSION=e2e"}
	if source == Build {
		if err := layOutProduct(ctx, root); err != nil {
			return fmt.Errorf("laying out the files of the image: %w", err)
		}
		args = append(args, "--build-arg", "BUILD=prebuilt")
	}
	return docker.Build(ctx, root, product, args...)
}

// layOutProduct puts the files of the image below bin/image/, as the Dockerfile wants them.
func layOutProduct(ctx context.Context, root string) error {
	const roots = "/etc/ssl/certs/ca-certificates.crt"
	if _, err := os.Stat(roots); err != nil {
		if err := step.Install(ctx, "the list of certificate authorities", "ca-certificates"); err != nil {
			return err
		}
	}
	folder := filepath.Join(root, "bin", "image")
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	args := []string{"build", "-trimpath", "-ldflags", "-s -w -X main.version=e2e", "-o", filepath.Join(folder, "bin") + "/"}
	for _, name := range inProduct {
		args = append(args, "./cmd/"+name)
	}
	cmd := step.Command(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if _, err := step.Run(cmd); err != nil {
		return err
	}
	return inputs.Link(roots, filepath.Join(folder, roots))
}
