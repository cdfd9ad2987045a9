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

// inClusterCA is where the DaemonSet mounts kube-root-ca.crt. There is no token
// beside it: the provider has no identity of its own.
const inClusterCA = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"

// maxSecretAnswer bounds what is read of the API server's answer: 1 MiB of data
// in base64, and metadata. An object in etcd has 1.5 MiB at most.
const maxSecretAnswer = 4 << 20

// shortSecretAnswer is what is read without being reserved first.
const shortSecretAnswer = 64 << 10

// errTooManyEntries is the error of a Secret that has more than its limit.
var errTooManyEntries = fmt.Errorf("it has more than the limit of %d entries", maxEntries)

// Kubernetes reads Secrets from an API server, each with the token of whoever
// asks. It has one pool of connections and no credentials, and it is safe for
// concurrent use.
type Kubernetes struct {
	client rest.Interface
	host   string
}

// InCluster returns the API server of the cluster that the process runs in, by
// KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT as getenv gives them and
// the CA certificates that are mounted; nil if it runs in none.
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

// FromKubeconfig returns the API server of a kubeconfig's current context, with
// the credentials there, which [NewKubernetes] drops.
func FromKubeconfig(file string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, fmt.Errorf("reading kubeconfig %s: %w", file, err)
	}
	return config, nil
}

// NewKubernetes reads the CA certificates. It does not connect. Credentials in
// the configuration are not used.
func NewKubernetes(config *rest.Config) (*Kubernetes, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Secret{})
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)

	c := rest.AnonymousClientConfig(config)
	c.APIPath = "/api"
	c.GroupVersion = &corev1.SchemeGroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.UserAgent = RuntimeName
	c.QPS = -1 // the API server has its own limits, and knows of all nodes
	c.WarningHandler = rest.NoWarnings{}
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { return bounded{next} })
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("preparing the client of the API server %s: %w", config.Host, err)
	}
	return &Kubernetes{client: client, host: config.Host}, nil
}

// secret reads the data of a Secret as the owner of the token. What may be gone in
// a moment is tried again until the context ends. It calls large before it reads an
// answer that is not short, and gives up where that has an error. It tells of each
// try the HTTP status of the answer, 0 if there was none or none of an API server,
// and how long it took.
func (k *Kubernetes) secret(ctx context.Context, namespace, name, token string, large func() error,
	tried func(status int, took time.Duration)) (map[string][]byte, error) {
	ctx = context.WithValue(ctx, largeKey{}, large)
	var data map[string][]byte
	err := retry.Do(ctx, 0, func() *retry.Failure {
		began := time.Now()
		result := k.client.Get().Namespace(namespace).Resource("secrets").Name(name).
			SetHeader("Authorization", "Bearer "+token).
			MaxRetries(0).Do(ctx)
		status := 0
		result.StatusCode(&status)
		tried(status, time.Since(began))
		body, err := result.Raw()
		if err != nil {
			err = result.Error() // which has the server's words
		} else if data, err = secretData(body); err == nil {
			return nil
		}
		wait, again := transient(err)
		return &retry.Failure{Err: err, Final: !again, After: wait}
	})
	return data, err
}

// transient reports whether an error may be gone in a moment, and how long the
// API server would like to be left alone.
func transient(err error) (wait time.Duration, again bool) {
	if isTooLong(err) || errors.Is(err, errTooManyEntries) {
		return 0, false
	}
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		wait = time.Duration(seconds) * time.Second
	}
	code := statusOf(err)
	return wait, code == 0 || code == http.StatusTooManyRequests || code >= 500
}

// statusOf returns the HTTP status of an error; 0 when there was no answer.
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

// secretData reads the data out of a Secret as the API server sends it, and nothing
// else. The error repeats none of it.
func secretData(body []byte) (map[string][]byte, error) {
	var s struct {
		Kind string          `json:"kind"`
		Data json.RawMessage `json:"data"`
	}
	if json.Unmarshal(body, &s) != nil || s.Kind != "" && s.Kind != "Secret" {
		return nil, errors.New("the answer is not a Secret")
	}
	if s.Data == nil {
		return nil, nil
	}
	if values, _ := document.JSONSize(s.Data); values > maxEntries+1 {
		return nil, errTooManyEntries
	}
	var data map[string][]byte
	if json.Unmarshal(s.Data, &data) != nil {
		return nil, errors.New("the answer is not a Secret")
	}
	return data, nil
}

// bounded ends an answer that is longer than any Secret with an error.
type bounded struct{ next http.RoundTripper }

// largeKey is where the context of a request has what to call before more is read
// than shortSecretAnswer.
type largeKey struct{}

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil && resp.Body != nil {
		large, _ := r.Context().Value(largeKey{}).(func() error)
		resp.Body = http.MaxBytesReader(nil,
			&reservedBody{ReadCloser: resp.Body, short: shortSecretAnswer, large: large}, maxSecretAnswer)
	}
	return resp, err
}

// reservedBody calls large before it reads more than short bytes.
type reservedBody struct {
	io.ReadCloser
	short int
	large func() error // nil once it was called
}

func (b *reservedBody) Read(p []byte) (int, error) {
	if b.short <= 0 && b.large != nil {
		if err := b.large(); err != nil {
			return 0, err
		}
		b.large = nil
	}
	if b.large != nil {
		p = p[:min(len(p), b.short)]
	}
	n, err := b.ReadCloser.Read(p)
	b.short -= n
	return n, err
}
