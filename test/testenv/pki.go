package testenv

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// An authority is the certificate authority of one instance. Its certificates are valid
// for a day, which is longer than any test.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func newAuthority(name string) (*authority, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	certificate, key, err := issue(template, nil)
	if err != nil {
		return nil, fmt.Errorf("making the CA %s: %w", name, err)
	}
	return &authority{certificate: certificate, key: key}, nil
}

func (a *authority) pem() []byte { return certificatePEM(a.certificate) }

// writeServing writes a certificate for a server on this machine, also known as names.
func (a *authority) writeServing(certFile, keyFile string, names ...string) error {
	certificate, key, err := issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: names[0]},
		DNSNames:    append([]string{"localhost"}, names...),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a)
	if err != nil {
		return fmt.Errorf("making a serving certificate: %w", err)
	}
	text, err := keyPEM(key)
	if err != nil {
		return fmt.Errorf("making a serving certificate: %w", err)
	}
	if err := os.WriteFile(certFile, certificatePEM(certificate), 0o644); err != nil {
		return fmt.Errorf("writing a serving certificate: %w", err)
	}
	if err := os.WriteFile(keyFile, text, 0o600); err != nil {
		return fmt.Errorf("writing the key of a serving certificate: %w", err)
	}
	return nil
}

// client returns the certificate and the key, in PEM, of a user in a group.
func (a *authority) client(user, group string) (certificate, key []byte, err error) {
	cert, signer, err := issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: []string{group}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a)
	if err == nil {
		key, err = keyPEM(signer)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("making a client certificate: %w", err)
	}
	return certificatePEM(cert), key, nil
}

// issue completes the template and signs it, with its own key if parent is nil.
func issue(template *x509.Certificate, parent *authority) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber = serial
	if template.NotAfter.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	if parent == nil {
		parent = &authority{certificate: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.certificate, key.Public(), parent.key)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return certificate, key, err
}

func certificatePEM(certificate *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
