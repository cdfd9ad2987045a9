package testenv_test

import (
	"net/http"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// get returns the status of a GET with the configuration.
func get(t *testing.T, config *rest.Config, path string) int {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

func TestSecretReadAccess(t *testing.T) {
	s := testenv.SharedAPIServer(t)
	s.CreateServiceAccount(t, "who", "app")
	kubeconfig, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	pod := rest.AnonymousClientConfig(s.Config)
	pod.BearerToken = s.ServiceAccountToken(t, "who", "app", "", 10*time.Minute)
	wrongAudience := rest.AnonymousClientConfig(s.Config)
	wrongAudience.BearerToken = s.ServiceAccountToken(t, "who", "app", "vault", 10*time.Minute)

	for _, test := range []struct {
		name   string
		config *rest.Config
		want   int
	}{
		{"the administrator", s.Config, http.StatusOK},
		{"the kubeconfig's user", kubeconfig, http.StatusOK},
		{"a pod without a role", pod, http.StatusForbidden},
		{"a token of another audience", wrongAudience, http.StatusUnauthorized},
		{"nobody", rest.AnonymousClientConfig(s.Config), http.StatusUnauthorized},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := get(t, test.config, "/api/v1/namespaces/who/secrets"); got != test.want {
				t.Errorf("got status %d, want %d", got, test.want)
			}
		})
	}
}

func TestAPIServerRestartKeepsDataAndAddress(t *testing.T) {
	s := testenv.NewAPIServer(t)
	s.CreateNamespace(t, "kept")
	address := s.Address
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Address != address {
		t.Errorf("after the restart it is at %s, before at %s", s.Address, address)
	}
	if got := get(t, s.Config, "/api/v1/namespaces/kept/serviceaccounts/default"); got != http.StatusOK {
		t.Errorf("after the restart, the default service account gives status %d", got)
	}
}
