package transit

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/secretmanager-io/secretmanager/internal/clock"
)

// certificateAge is the time after which the certificate files are read again.
// Operators and controllers replace them while the process runs.
const certificateAge = time.Minute

// certificates are the contents of the files of a Config.
type certificates struct {
	roots  *x509.CertPool // nil: those of the system
	client *tls.Certificate
	sum    [sha256.Size]byte
}

// readCertificates reads the files of a Config.
func readCertificates(c Config) (*certificates, error) {
	var read certificates
	var all bytes.Buffer
	switch {
	case c.CACert != "":
		text, err := os.ReadFile(c.CACert)
		if err != nil {
			return nil, fmt.Errorf("reading the CA certificates: %w", err)
		}
		read.roots = x509.NewCertPool()
		if !read.roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("reading the CA certificates: %s has no certificate in PEM", c.CACert)
		}
		all.Write(text)
	case c.CAPath != "":
		var err error
		if read.roots, err = readDir(c.CAPath, &all); err != nil {
			return nil, fmt.Errorf("reading the CA certificates: %w", err)
		}
	}
	if c.ClientCert != "" {
		certificate, err := os.ReadFile(c.ClientCert)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate: %w", err)
		}
		key, err := os.ReadFile(c.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("reading the key of the client certificate: %w", err)
		}
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate %s and its key %s: %w", c.ClientCert, c.ClientKey, err)
		}
		read.client = &pair
		all.Write(certificate)
		all.Write(key)
	}
	read.sum = sha256.Sum256(all.Bytes())
	return &read, nil
}

// readDir reads all certificates in a directory and its subdirectories. It skips other
// files. The directory may be a Kubernetes volume, whose files are symbolic links
// through a hidden directory.
func readDir(dir string, all *bytes.Buffer) (*x509.CertPool, error) {
	roots, found := x509.NewCertPool(), false
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path != dir && strings.HasPrefix(entry.Name(), "..") {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return nil // a directory, or a dangling symbolic link
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if roots.AppendCertsFromPEM(text) {
			found = true
			all.Write(text)
		}
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("directory %s has no file with a certificate in PEM", dir)
	}
	return roots, err
}

// transport sends requests with the current certificates of the files: it reads them
// again once a minute, and when TLS fails. After a change it makes new connections. If
// the files cannot be read, as in the middle of a change, it keeps the old certificates.
type transport struct {
	config Config
	now    func() clock.Reading

	mu      sync.Mutex
	current *http.Transport
	used    *certificates
	read    clock.Reading
	readErr error // of the last attempt to read the files again
}

func newTransport(c Config) (*transport, error) {
	t := &transport{config: c, now: clock.Now}
	used, err := readCertificates(c)
	if err != nil {
		return nil, err
	}
	if t.current, err = connections(c, used); err != nil {
		return nil, err
	}
	t.used, t.read = used, t.now()
	return t, nil
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.mu.Lock()
	if t.now().Since(t.read) >= certificateAge {
		t.reload()
	}
	current := t.current
	t.mu.Unlock()
	return current.RoundTrip(r)
}

// reload reads the files again, and reports whether they have changed. The caller holds
// t.mu.
func (t *transport) reload() bool {
	t.read = t.now()
	if t.config.CACert == "" && t.config.CAPath == "" && t.config.ClientCert == "" {
		return false
	}
	var read *certificates
	if read, t.readErr = readCertificates(t.config); t.readErr != nil || read.sum == t.used.sum {
		return false
	}
	var next *http.Transport
	if next, t.readErr = connections(t.config, read); t.readErr != nil {
		return false
	}
	t.current.CloseIdleConnections()
	t.current, t.used = next, read
	return true
}

// explainFailure reads the files again after TLS failed. It reports whether they have
// changed, so that another attempt may succeed, or returns a hint for the error.
func (t *transport) explainFailure(byVault bool) (hint string, changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reload() {
		return "", true
	}
	var hints []string
	switch client := t.used.client; {
	case !byVault:
	case client == nil:
		hints = append(hints, "no client certificate is set, which Vault may require")
	case client.Leaf != nil && time.Now().After(client.Leaf.NotAfter):
		hints = append(hints, fmt.Sprintf("the client certificate in %s expired at %s", t.config.ClientCert,
			client.Leaf.NotAfter.UTC().Format(time.RFC3339)))
	default:
		hints = append(hints, fmt.Sprintf("the client certificate is %s", t.config.ClientCert))
	}
	if t.readErr != nil {
		hints = append(hints, fmt.Sprintf("newer certificates are not used: %v", t.readErr))
	}
	return strings.Join(hints, "; "), false
}

// If nothing arrives on an HTTP/2 connection for pingAfter, it must answer a ping within pingTimeout.
const (
	pingAfter   = 5 * time.Second
	pingTimeout = 3 * time.Second
)

// connections returns a pool of connections that use the certificates.
func connections(c Config, used *certificates) (*http.Transport, error) {
	conf := api.DefaultConfig()
	if conf.Error != nil && conf.HttpClient == nil {
		return nil, fmt.Errorf("preparing the Vault client: %w", conf.Error)
	}
	pool, ok := conf.HttpClient.Transport.(*http.Transport)
	if !ok || pool.TLSClientConfig == nil {
		return nil, errors.New("preparing the Vault client: unknown type of its transport")
	}
	// Many pods start at once on a node, and each new connection costs a handshake.
	pool.MaxIdleConnsPerHost = 64
	// A connection that a firewall or a failed node dropped without a message would otherwise be used
	// until TCP gives up, after a quarter of an hour. A request that waits on it is repeated.
	pool.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout}
	// Overwrite all settings: the API client has set them from the environment.
	pool.TLSClientConfig.RootCAs = used.roots
	pool.TLSClientConfig.ServerName = c.TLSServerName
	pool.TLSClientConfig.InsecureSkipVerify = c.Insecure
	pool.TLSClientConfig.GetClientCertificate = nil
	if used.client != nil {
		// Ignore the CAs that the server requests: the list may be incomplete.
		pool.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return used.client, nil
		}
	}
	return pool, nil
}
