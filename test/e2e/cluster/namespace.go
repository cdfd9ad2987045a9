package cluster

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NewNamespace creates a namespace, and waits for its service account, which pods need.
func (c *Cluster) NewNamespace(ctx context.Context) (string, error) {
	namespace, err := c.Client.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("making a namespace: %w", err)
	}
	name := namespace.Name
	err = Wait(ctx, 30*time.Second, "the service account of namespace "+name,
		func(ctx context.Context) (bool, string, error) {
			_, err := c.Client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
			return err == nil, "", err
		})
	return name, err
}
