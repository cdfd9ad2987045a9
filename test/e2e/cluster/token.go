package cluster

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Token returns a token of the service account for the audience. It waits for the account
// of a new namespace.
func (c *Cluster) Token(ctx context.Context, namespace, serviceAccount, audience string) (string, error) {
	request := &authenticationv1.TokenRequest{}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	var token string
	err := Wait(ctx, 30*time.Second, fmt.Sprintf("a token of ServiceAccount %s/%s", namespace, serviceAccount),
		func(ctx context.Context) (bool, string, error) {
			response, err := c.Client.CoreV1().ServiceAccounts(namespace).
				CreateToken(ctx, serviceAccount, request, metav1.CreateOptions{})
			if apierrors.IsNotFound(err) {
				return false, "the account does not exist", nil
			}
			if err != nil {
				return false, "", err
			}
			token = response.Status.Token
			return true, "", nil
		})
	return token, err
}
