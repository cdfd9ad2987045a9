package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/secretmanager-io/secretmanager/test/e2e/step"
)

// ProductNamespace is the namespace of provider and rotator.
const ProductNamespace = "secretmanager-system"

// InstallProduct installs provider and rotator as an operator would, with an
// overlay over manifests/, and waits for provider and exporter.
func (c *Cluster) InstallProduct(ctx context.Context) error {
	return step.Do(ctx, "installing provider and rotator", func(ctx context.Context) error {
		// The name of the image does not identify its content: without this, an existing
		// cluster would keep its provider.
		renew := func(object *unstructured.Unstructured) error {
			if object.GetKind() != "DaemonSet" {
				return nil
			}
			return unstructured.SetNestedField(object.Object, c.Images.ProductID, "spec", "template", "metadata",
				"annotations", "image-id")
		}
		if err := c.ApplyKustomization(ctx, filepath.Join(c.root, "test", "e2e", "overlay"), renew); err != nil {
			return err
		}
		if err := c.WaitDaemonSet(ctx, ProductNamespace, "secretmanager-provider"); err != nil {
			return err
		}
		return c.WaitDeployment(ctx, ProductNamespace, "secretmanager-exporter")
	})
}

// WriteEnvironment writes a file that a shell can source, with KUBECONFIG, VAULT_ADDR and
// VAULT_TOKEN of the cluster.
func (c *Cluster) WriteEnvironment(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf("export KUBECONFIG='%s'\nexport VAULT_ADDR='%s'\nexport VAULT_TOKEN='%s'\n", c.Kubeconfig,
		c.Vault.Address, c.Vault.Token)
	return os.WriteFile(path, []byte(text), 0o600)
}
