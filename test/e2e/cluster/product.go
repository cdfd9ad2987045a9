package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/secretmanager-io/secretmanager/test/e2e/step"
)

// ProductNamespace is where provider and rotator run.
const ProductNamespace = "secretmanager-system"

// InstallProduct installs provider and rotator as an operator would, with an
// overlay over manifests/, and waits for provider and exporter.
func (c *Cluster) InstallProduct(ctx context.Context) error {
	return step.Do(ctx, "installing provider and rotator", func(ctx context.Context) error {
		// The image's name does not identify its content: without this a cluster that
		// stood already would go on with the provider that it has.
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

// WriteEnvironment writes a file for a shell to source, which then has the
// cluster and its Vault: KUBECONFIG, VAULT_ADDR and VAULT_TOKEN.
func (c *Cluster) WriteEnvironment(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf("export KUBECONFIG='%s'\nexport VAULT_ADDR='%s'\nexport VAULT_TOKEN='%s'\n", c.Kubeconfig,
		c.Vault.Address, c.Vault.Token)
	return os.WriteFile(path, []byte(text), 0o600)
}
