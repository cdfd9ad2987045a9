package testenv

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CreateNamespace creates a namespace with its default service account, which no
// controller manager creates here. It keeps existing ones.
func (s *APIServer) CreateNamespace(t testing.TB, namespace string) {
	t.Helper()
	s.CreateServiceAccount(t, namespace, "default")
}

// CreateServiceAccount creates a service account and its namespace. It keeps existing
// ones.
func (s *APIServer) CreateServiceAccount(t testing.TB, namespace, name string) {
	t.Helper()
	if err := s.createServiceAccount(t.Context(), namespace, name); err != nil {
		t.Fatal(err)
	}
}

func (s *APIServer) createServiceAccount(ctx context.Context, namespace, name string) error {
	err := s.create(ctx, "/api/v1/namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	if err != nil {
		return fmt.Errorf("creating the namespace %s: %w", namespace, err)
	}
	err = s.create(ctx, "/api/v1/namespaces/"+namespace+"/serviceaccounts",
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}})
	if err != nil {
		return fmt.Errorf("creating the service account %s/%s: %w", namespace, name, err)
	}
	return nil
}

// CreateRotatorState creates the ConfigMaps and the Lease that the rotator needs and does
// not create, as the chart does. It keeps existing ones.
func (s *APIServer) CreateRotatorState(ctx context.Context, namespace string) error {
	const name = "secretmanager-rotation" // rotator.StateName, and the others of rotator.StateNames
	for _, name := range []string{name, name + "-0", name + "-1", name + "-2", name + "-3"} {
		err := s.create(ctx, "/api/v1/namespaces/"+namespace+"/configmaps",
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}})
		if err != nil {
			return fmt.Errorf("creating the ConfigMap %s/%s: %w", namespace, name, err)
		}
	}
	err := s.create(ctx, "/apis/coordination.k8s.io/v1/namespaces/"+namespace+"/leases",
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}})
	if err != nil {
		return fmt.Errorf("creating the Lease %s/%s: %w", namespace, name, err)
	}
	return nil
}

// ServiceAccountToken returns a token of the service account like that of a pod, but bound
// to no pod. The account must exist. An empty audience means the API server. The lifetime
// is at least ten minutes.
func (s *APIServer) ServiceAccountToken(t testing.TB, namespace, name, audience string, ttl time.Duration) string {
	t.Helper()
	token, err := s.serviceAccountToken(t.Context(), namespace, name, audience, ttl, nil)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// PodToken returns a token of the service account that is bound to a pod, as the kubelet
// gets it for the pod's volumes, and the pod's uid. If the pod does not exist, PodToken
// creates it; nothing runs it. The account must exist.
func (s *APIServer) PodToken(t testing.TB, namespace, pod, account, audience string,
	ttl time.Duration) (token, uid string) {
	t.Helper()
	path := "/api/v1/namespaces/" + namespace + "/pods"
	err := s.create(t.Context(), path, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: pod}, Spec: corev1.PodSpec{
		ServiceAccountName: account, Containers: []corev1.Container{{Name: "app", Image: "app"}},
	}})
	if err != nil {
		t.Fatalf("creating the pod %s/%s: %v", namespace, pod, err)
	}
	var created corev1.Pod
	if err := s.call(t.Context(), http.MethodGet, path+"/"+pod, nil, &created); err != nil {
		t.Fatalf("reading the pod %s/%s: %v", namespace, pod, err)
	}
	if created.Spec.ServiceAccountName != account {
		t.Fatalf("the pod %s/%s has service account %s, not %s", namespace, pod, created.Spec.ServiceAccountName, account)
	}
	token, err = s.serviceAccountToken(t.Context(), namespace, account, audience, ttl,
		&authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: pod, UID: created.UID,
		})
	if err != nil {
		t.Fatal(err)
	}
	return token, string(created.UID)
}

func (s *APIServer) serviceAccountToken(ctx context.Context, namespace, name, audience string, ttl time.Duration,
	bound *authenticationv1.BoundObjectReference) (string, error) {
	seconds := int64(ttl.Seconds())
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds,
		BoundObjectRef: bound}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	var granted authenticationv1.TokenRequest
	path := "/api/v1/namespaces/" + namespace + "/serviceaccounts/" + name + "/token"
	if err := s.call(ctx, http.MethodPost, path, request, &granted); err != nil {
		return "", fmt.Errorf("asking for a token of the service account %s/%s: %w", namespace, name, err)
	}
	return granted.Status.Token, nil
}

// ReviewerToken returns a token with which Vault's kubernetes method can review other
// tokens: that of a service account bound to the cluster role system:auth-delegator. It is
// valid for a day.
func (s *APIServer) ReviewerToken(t testing.TB) string {
	t.Helper()
	const namespace, name = "vault", "vault-reviewer"
	s.CreateServiceAccount(t, namespace, name)
	err := s.create(t.Context(), "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:auth-delegator"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}},
	})
	if err != nil {
		t.Fatalf("letting %s/%s review tokens: %v", namespace, name, err)
	}
	return s.ServiceAccountToken(t, namespace, name, "", 24*time.Hour)
}

// writeServiceAccountKey writes the key that signs service account tokens.
func writeServiceAccountKey(path string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("making the key of service-account tokens: %w", err)
	}
	text, err := keyPEM(key)
	if err != nil {
		return fmt.Errorf("making the key of service-account tokens: %w", err)
	}
	return os.WriteFile(path, text, 0o600)
}

// A statusError is a response of the API server with a status of 400 or above.
type statusError struct {
	status  int
	message string
}

func (e *statusError) Error() string { return e.message }

// create posts the object to path. An existing object of that name is not an error.
func (s *APIServer) create(ctx context.Context, path string, object any) error {
	err := s.call(ctx, http.MethodPost, path, object, nil)
	if refused := (*statusError)(nil); errors.As(err, &refused) && refused.status == http.StatusConflict {
		return nil
	}
	return err
}

// call sends a request as the administrator. It does not use the typed clients, which
// would be most of the code that tests with this package compile.
func (s *APIServer) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, s.Address+path, body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= http.StatusBadRequest {
		var status metav1.Status
		if json.Unmarshal(text, &status) != nil || status.Message == "" {
			status.Message = fmt.Sprintf("%s: %s", response.Status, text)
		}
		return &statusError{status: response.StatusCode, message: status.Message}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}
