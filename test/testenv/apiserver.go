package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

// portAttempts bounds the attempts to start with another port: another process may take
// a free port before the child uses it.
const portAttempts = 5

// An APIServer is a running kube-apiserver with its own etcd. It uses RBAC and refuses
// anonymous requests.
//
// No controller manager runs, so a namespace gets no default service account (see
// [APIServer.CreateServiceAccount]), owned objects are not collected, and deleted
// namespaces remain.
//
// Its methods are safe for concurrent use.
type APIServer struct {
	// Address is the URL of the server. [APIServer.Restart] keeps it.
	Address string
	// CA is the certificate of its CA in PEM, and CAFile a file with it.
	CA     []byte
	CAFile string
	// Config is the configuration of a cluster administrator with a client certificate,
	// without a limit on requests per second. Copy it before changing it.
	Config *rest.Config
	// Kubeconfig is a kubeconfig file with the content of Config.
	Kubeconfig string
	// Issuer is the "iss" of the service-account tokens.
	Issuer string

	dir     string
	program string
	client  *http.Client

	mu      sync.Mutex // guards the processes, and serializes Stop and Restart
	etcd    *process
	server  *process
	stopped bool
}

// NewAPIServer starts an API server that ends with the test.
func NewAPIServer(t testing.TB) *APIServer {
	t.Helper()
	s, err := StartAPIServer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	showLogOnFailure(t, s)
	return s
}

// StartAPIServer starts an etcd and an API server, builds them first if needed, and
// returns when the server is ready. ctx applies only to the start: they run until
// [APIServer.Stop], or until this process ends.
func StartAPIServer(ctx context.Context) (*APIServer, error) {
	paths, err := programs.Build(ctx, "etcd", "kube-apiserver")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()

	// The name of the directory is short because the path of a socket must be short.
	dir, err := os.MkdirTemp("", "kube-")
	if err != nil {
		return nil, fmt.Errorf("starting an API server: %w", err)
	}
	s := &APIServer{Issuer: "https://kubernetes.default.svc.cluster.local", dir: dir, program: paths[1]}
	if err := s.prepare(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("starting an API server: %w", err)
	}
	if s.etcd, err = startEtcd(ctx, dir, paths[0]); err == nil {
		err = s.startAnywhere(ctx)
	}
	if err != nil {
		s.stopProcesses()
		os.RemoveAll(dir)
		return nil, err
	}
	register(s)
	return s, nil
}

func (s *APIServer) file(name string) string { return filepath.Join(s.dir, name) }

// prepare writes the keys and certificates, and creates the administrator's Config
// without the address.
func (s *APIServer) prepare() error {
	ca, err := newAuthority("kubernetes-test-ca")
	if err != nil {
		return err
	}
	s.CA, s.CAFile = ca.pem(), s.file("ca.crt")
	if err := os.WriteFile(s.CAFile, s.CA, 0o644); err != nil {
		return err
	}
	if err := ca.writeServing(s.file("tls.crt"), s.file("tls.key"), "kubernetes", "kubernetes.default.svc"); err != nil {
		return err
	}
	if err := writeServiceAccountKey(s.file("sa.key")); err != nil {
		return err
	}
	certificate, key, err := ca.client("test-administrator", "system:masters")
	if err != nil {
		return err
	}
	s.Config = &rest.Config{
		QPS:             -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: s.CA, CertData: certificate, KeyData: key},
	}
	return nil
}

// startAnywhere starts the server on a free port, and sets the address.
func (s *APIServer) startAnywhere(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		address, err := freeAddress()
		if err != nil {
			return fmt.Errorf("starting an API server: %w", err)
		}
		s.Address = "https://" + address
		s.Config.Host = s.Address
		if s.client, err = rest.HTTPClientFor(s.Config); err != nil {
			return fmt.Errorf("starting an API server: %w", err)
		}
		err = s.start(ctx)
		if err == nil {
			break
		}
		if attempt == portAttempts || !strings.Contains(err.Error(), "address already in use") {
			return err
		}
	}
	s.Kubeconfig = s.file("kubeconfig")
	if err := writeKubeconfig(s.Kubeconfig, s.Config); err != nil {
		return fmt.Errorf("writing the kubeconfig of an API server: %w", err)
	}
	return nil
}

// start runs kube-apiserver at s.Address and waits until it is ready.
func (s *APIServer) start(ctx context.Context) error {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(s.Address, "https://"))
	if err != nil {
		return fmt.Errorf("starting kube-apiserver: %w", err)
	}
	s.server, err = startProcess(s.dir, "kube-apiserver", s.program, []string{
		"--etcd-servers=unix://" + s.file(etcdSocket),
		"--bind-address=" + host,
		"--secure-port=" + port,
		"--advertise-address=" + host,
		// The loopback address is refused as an endpoint of the Service "kubernetes".
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/24",
		"--tls-cert-file=" + s.file("tls.crt"),
		"--tls-private-key-file=" + s.file("tls.key"),
		"--client-ca-file=" + s.CAFile,
		"--service-account-issuer=" + s.Issuer,
		"--service-account-signing-key-file=" + s.file("sa.key"),
		"--service-account-key-file=" + s.file("sa.key"),
		"--authorization-mode=RBAC",
		"--anonymous-auth=false",
		"--profiling=false",
	}, nil, false)
	if err != nil {
		return err
	}
	if err := s.waitReady(ctx); err != nil {
		s.server.stop()
		return err
	}
	return nil
}

// waitReady polls /readyz until it succeeds.
func (s *APIServer) waitReady(ctx context.Context) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		if s.call(ctx, http.MethodGet, "/readyz", nil, nil) == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-s.server.exited:
			return s.server.failure()
		case <-s.etcd.exited:
			return s.etcd.failure()
		case <-ctx.Done():
			return fmt.Errorf("waiting for kube-apiserver to be ready: %w\n%s", context.Cause(ctx), s.server.tail())
		}
	}
}

// Stop ends the API server and its etcd, and removes their data. Further calls do
// nothing.
func (s *APIServer) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.stopped = true
	s.stopProcesses()
	os.RemoveAll(s.dir)
	unregister(s)
}

func (s *APIServer) stopProcesses() {
	if s.server != nil {
		s.server.stop()
	}
	if s.etcd != nil {
		s.etcd.stop()
	}
}

// Restart kills the API server and starts it again at the same address with the same
// data, while etcd continues to run. It returns when the server is ready. ctx applies only
// to the start.
func (s *APIServer) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errors.New("restarting the API server: it has been stopped")
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s.server.stop()
	s.client.CloseIdleConnections()
	return s.start(ctx)
}

func (s *APIServer) tail() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.etcd.tail() + "\n" + s.server.tail()
}

// freeAddress returns a loopback address with a currently free port.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

func writeKubeconfig(path string, config *rest.Config) error {
	const name = "test"
	file := clientcmdapi.NewConfig()
	file.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	file.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: config.CertData, ClientKeyData: config.KeyData}
	file.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	file.CurrentContext = name
	return clientcmd.WriteToFile(*file, path)
}
