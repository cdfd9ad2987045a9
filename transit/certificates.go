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

// certificateAge is how long the certificates are used that were read last. An
// operator, or what stands for him, replaces the files while the process runs.
const certificateAge = time.Minute

// certificates are what the files of a Config hold.
type certificates struct {
	roots  *x509.CertPool // nil: the system's
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
		if read.roots, err = readFolder(c.CAPath, &all); err != nil {
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

// readFolder reads all certificates in a folder and the folders below it. It may
// be a volume of Kubernetes, whose files are links through a hidden folder, and
// may have files of another kind.
func readFolder(dir string, all *bytes.Buffer) (*x509.CertPool, error) {
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
			return nil // a folder, or a link that leads nowhere
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
		err = fmt.Errorf("folder %s has no file with a certificate in PEM", dir)
	}
	return roots, err
}

// transport sends requests with the certificates that the files hold now: they
// are read again once a minute, and when TLS fails. Where they have changed, the
// connections that were made with the old ones are not used again. While the
// files cannot be read, as in the middle of a change, the old ones stay.
type transport struct {
	config Config
	now    func() clock.Reading

	mu      sync.Mutex
	current *http.Transport
	used    *certificates
	read    clock.Reading
	failed  error // why the files could not be read again
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
		t.again()
	}
	current := t.current
	t.mu.Unlock()
	return current.RoundTrip(r)
}

// again reads the files again, and returns whether they have changed. t.mu is held.
func (t *transport) again() bool {
	t.read = t.now()
	if t.config.CACert == "" && t.config.CAPath == "" && t.config.ClientCert == "" {
		return false
	}
	var read *certificates
	if read, t.failed = readCertificates(t.config); t.failed != nil || read.sum == t.used.sum {
		return false
	}
	var next *http.Transport
	if next, t.failed = connections(t.config, read); t.failed != nil {
		return false
	}
	t.current.CloseIdleConnections()
	t.current, t.used = next, read
	return true
}

// refused is told of a failure of TLS. It returns what the files have to do with
// it, and whether they have changed, so that it may be tried again.
func (t *transport) refused(byVault bool) (hint string, again bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.again() {
		return "", true
	}
	var hints []string
	switch client := t.used.client; {
	case !byVault:
	case client == nil:
		hints = append(hints, "no client certificate is set, should it be that which is missing")
	case client.Leaf != nil && time.Now().After(client.Leaf.NotAfter):
		hints = append(hints, fmt.Sprintf("the client certificate in %s expired at %s", t.config.ClientCert,
			client.Leaf.NotAfter.UTC().Format(time.RFC3339)))
	default:
		hints = append(hints, fmt.Sprintf("the client certificate is that of %s", t.config.ClientCert))
	}
	if t.failed != nil {
		hints = append(hints, fmt.Sprintf("newer certificates are not used: %v", t.failed))
	}
	return strings.Join(hints, "; "), false
}

// connections returns a pool of connections that are made with the certificates.
func connections(c Config, used *certificates) (*http.Transport, error) {
	conf := api.DefaultConfig()
	if conf.Error != nil && conf.HttpClient == nil {
		return nil, fmt.Errorf("preparing the Vault client: %w", conf.Error)
	}
	pool, ok := conf.HttpClient.Transport.(*http.Transport)
	if !ok || pool.TLSClientConfig == nil {
		return nil, errors.New("preparing the Vault client: it has another transport than is known here")
	}
	// Many pods start at once on a node; each connection that is closed again
	// costs the next one a handshake.
	pool.MaxIdleConnsPerHost = 64
	// All of them are set: the environment of the process has left its own.
	pool.TLSClientConfig.RootCAs = used.roots
	pool.TLSClientConfig.ServerName = c.TLSServerName
	pool.TLSClientConfig.InsecureSkipVerify = c.Insecure
	pool.TLSClientConfig.GetClientCertificate = nil
	if used.client != nil {
		// Whatever CAs the server says it would like: it may not know them all.
		pool.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return used.client, nil
		}
	}
	return pool, nil
}
