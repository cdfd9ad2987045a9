package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/secretmanager-io/secretmanager/internal/document"
	"github.com/secretmanager-io/secretmanager/internal/retry"
)

// inClusterCA is where the DaemonSet mounts kube-root-ca.crt. It mounts no token: the provider has no Kubernetes
// identity.
const inClusterCA = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"

// maxSecretResponse bounds the response of the API server in bytes: 1 MiB of data in base64, and metadata. An object in
// etcd has 1.5 MiB at most.
const maxSecretResponse = 4 << 20

// smallSecretResponse is how many bytes are read without a reservation.
const smallSecretResponse = 64 << 10

// errTooManyEntries means that a Secret has more than maxEntries entries.
var errTooManyEntries = fmt.Errorf("it has more than the limit of %d entries", maxEntries)

// SecretReader reads Secrets from an API server, with the token of each caller. It has no credentials. It is safe for
// concurrent use, and shares its connections.
type SecretReader struct {
	client rest.Interface
	host   string
}

// InCluster returns the API server of the cluster that the process runs in, or nil outside a cluster. It reads
// KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT with getenv, and uses the mounted CA certificates.
func InCluster(getenv func(string) string) *rest.Config {
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil
	}
	return &rest.Config{
		Host:            "https://" + net.JoinHostPort(host, port),
		TLSClientConfig: rest.TLSClientConfig{CAFile: inClusterCA},
	}
}

// FromKubeconfig returns the API server of a kubeconfig's current context. The result includes its credentials, which
// [NewSecretReader] drops.
func FromKubeconfig(file string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, fmt.Errorf("reading kubeconfig %s: %w", file, err)
	}
	return config, nil
}

// NewSecretReader returns a reader for an API server. It reads the CA certificates, does not connect, and does not use
// credentials in the configuration.
func NewSecretReader(config *rest.Config) (*SecretReader, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Secret{})
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)

	c := rest.AnonymousClientConfig(config)
	c.APIPath = "/api"
	c.GroupVersion = &corev1.SchemeGroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.UserAgent = RuntimeName
	c.QPS = -1 // the API server has its own limits, for all nodes together
	c.WarningHandler = rest.NoWarnings{}
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { return limitedTransport{next} })
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("preparing the client of the API server %s: %w", config.Host, err)
	}
	return &SecretReader{client: client, host: config.Host}, nil
}

// read returns the data of a Secret, as the owner of the token. It retries transient errors until the context ends. It
// calls reserve before it reads a response of more than smallSecretResponse bytes, and fails if that returns an error.
// It calls observe after each attempt, with the HTTP status (0 without a response from an API server) and the duration.
func (k *SecretReader) read(ctx context.Context, namespace, name, token string, reserve func() error,
	observe func(status int, took time.Duration)) (map[string][]byte, error) {
	ctx = context.WithValue(ctx, reserveKey{}, reserve)
	var data map[string][]byte
	err := retry.Do(ctx, 0, func() *retry.Failure {
		start := time.Now()
		result := k.client.Get().Namespace(namespace).Resource("secrets").Name(name).
			SetHeader("Authorization", "Bearer "+token).
			MaxRetries(0).Do(ctx)
		status := 0
		result.StatusCode(&status)
		observe(status, time.Since(start))
		body, err := result.Raw()
		if err != nil {
			err = result.Error() // includes the message of the server
		} else if data, err = secretData(body); err == nil {
			return nil
		}
		wait, retryable := transient(err)
		return &retry.Failure{Err: err, Final: !retryable, After: wait}
	})
	return data, err
}

// transient reports whether a retry may succeed, and how long the API server wants the client to wait.
func transient(err error) (wait time.Duration, retryable bool) {
	if isTooLong(err) || errors.Is(err, errTooManyEntries) {
		return 0, false
	}
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		wait = time.Duration(seconds) * time.Second
	}
	code := statusOf(err)
	return wait, code == 0 || code == http.StatusTooManyRequests || code >= 500
}

// statusOf returns the HTTP status of an error; 0 without a response.
func statusOf(err error) int {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return int(status.Status().Code)
	}
	return 0
}

func isTooLong(err error) bool {
	var tooLong *http.MaxBytesError
	return errors.As(err, &tooLong)
}

// secretData returns the data of a Secret in JSON. The error does not quote it.
func secretData(body []byte) (map[string][]byte, error) {
	var s struct {
		Kind string          `json:"kind"`
		Data json.RawMessage `json:"data"`
	}
	if json.Unmarshal(body, &s) != nil || s.Kind != "" && s.Kind != "Secret" {
		return nil, errors.New("the response is not a Secret")
	}
	if s.Data == nil {
		return nil, nil
	}
	if values, _ := document.JSONSize(s.Data); values > maxEntries+1 {
		return nil, errTooManyEntries
	}
	var data map[string][]byte
	if json.Unmarshal(s.Data, &data) != nil {
		return nil, errors.New("the response is not a Secret")
	}
	return data, nil
}

// limitedTransport fails a response that is longer than any Secret.
type limitedTransport struct{ next http.RoundTripper }

// reserveKey is the context key of the function to call before more than smallSecretResponse bytes are read.
type reserveKey struct{}

func (t limitedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err == nil && resp.Body != nil {
		reserve, _ := r.Context().Value(reserveKey{}).(func() error)
		resp.Body = http.MaxBytesReader(nil,
			&reservedBody{ReadCloser: resp.Body, unreserved: smallSecretResponse, reserve: reserve}, maxSecretResponse)
	}
	return resp, err
}

// reservedBody calls reserve before it reads more than the unreserved bytes.
type reservedBody struct {
	io.ReadCloser
	unreserved int          // bytes left
	reserve    func() error // nil after the call
}

func (b *reservedBody) Read(p []byte) (int, error) {
	if b.unreserved <= 0 && b.reserve != nil {
		if err := b.reserve(); err != nil {
			return 0, err
		}
		b.reserve = nil
	}
	if b.reserve != nil {
		p = p[:min(len(p), b.unreserved)]
	}
	n, err := b.ReadCloser.Read(p)
	b.unreserved -= n
	return n, err
}
