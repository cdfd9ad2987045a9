// Package provider answers the Secrets Store CSI driver: it turns the Mount of
// a pod's volume into the plaintext files of a ciphertext Secret.
//
// A Mount goes one way. The parameters of the SecretProviderClass, which the
// pod may override, are read and validated (parameters.go, objects.go); the
// ciphertext comes from the kubelet or is read from the API server as the pod
// (source.go). If that same volume has had an answer to all that, it is given
// again (republish.go). Otherwise the pod's own service-account token logs in to
// Vault, unless the Vault token of its identity is at hand (logins.go), and one
// batch request decrypts (mount.go); what the plaintext holds becomes files
// (files.go, field.go), each with a version that gives nothing away
// (version.go). The provider has no rights of its own: neither Kubernetes nor
// Vault knows it.
//
// # Errors
//
// The gRPC code of an error decides what becomes of the pod. The kubelet takes
// Canceled, DeadlineExceeded, Unavailable, ResourceExhausted and Aborted for
// "perhaps it was mounted" and keeps the folder it made; the driver then takes
// that folder for a finished mount, as long as it is younger than the rotation
// poll interval, and the pod starts with an empty volume (docs/failures.md).
// So none of these five is ever sent: InvalidArgument, NotFound,
// PermissionDenied, Unauthenticated, FailedPrecondition and Internal are the
// only codes. Mount guarantees it for itself and [Server] for every call.
//
// Every message says what failed, why, and what to check. Tokens, plaintext and
// ciphertext are in no message and in no log, at any level.
package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"k8s.io/utils/lru"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/auditlog"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/quota"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	// RuntimeName is what Version calls the provider.
	RuntimeName = "secretmanager-provider"

	// DefaultAuthMount is the Vault auth mount to log in to unless told.
	DefaultAuthMount = class.DefaultAuthMount
	// DefaultAudience is the audience of the token to log in with unless told.
	DefaultAudience = class.DefaultAudience
	// DefaultMountTimeout ends a mount well before the kubelet's two minutes.
	DefaultMountTimeout = 25 * time.Second

	// apiVersion is the version of the driver's protocol.
	apiVersion = "v1alpha1"
)

// Config is what the operator decides. Vault and VersionKey are required.
type Config struct {
	// Vault is how to reach Vault. Its address is the one that is used where a
	// class names none; its TLS settings are those of every address. Observe and
	// LoggedIn are set by New, for the metrics.
	Vault transit.Config
	// AllowedAddresses are the further Vault addresses that a class may name.
	AllowedAddresses []string
	// VaultNamespace is Vault's, where a class names none; empty for the root.
	VaultNamespace string
	// AllowedNamespaces are the further Vault namespaces that a class may name.
	AllowedNamespaces []string
	// AuthMount is the path of the auth mount below auth/, where a class names
	// none; DefaultAuthMount if empty.
	AuthMount string
	// AllowedAuthMounts are the further auth mounts that a class may name. All must
	// be of type kubernetes or jwt: other methods may not look at the token of the
	// pod at all, but at the provider's client certificate.
	AllowedAuthMounts []string
	// Audience says which of the pod's tokens logs in, where a class names none.
	// The empty audience is the API server's.
	Audience string
	// MountTimeout is how long a mount may take; DefaultMountTimeout if zero.
	MountTimeout time.Duration
	// RepublishCacheBytes bounds the answers that are kept to be given again when
	// the kubelet repeats a mount; none are if it is zero.
	RepublishCacheBytes int64
	// VersionKey makes object versions, see [VersionKey].
	VersionKey []byte
	// Kubernetes reads Secrets as the pod; nil where there is no API server, and
	// then ciphertext comes from the kubelet only.
	Kubernetes *Kubernetes
	// Node is the name of the node, for the audit log and the headers to Vault;
	// may be empty.
	Node string
	// Audit gets the audit records, a line of JSON for each; nil for none. Only one
	// goroutine writes to it at a time. See package auditlog.
	Audit io.Writer
	// Log gets one record for each mount; slog.Default() if nil.
	Log *slog.Logger
	// BuildVersion is what Version answers as the version of the runtime.
	BuildVersion string
}

// settings returns the part of the configuration that is about classes.
func (c *Config) settings() class.Settings {
	return class.Settings{
		VaultAddress: c.Vault.Address, AllowedAddresses: c.AllowedAddresses,
		VaultNamespace: c.VaultNamespace, AllowedNamespaces: c.AllowedNamespaces,
		AuthMount: c.AuthMount, AllowedAuthMounts: c.AllowedAuthMounts, Audience: c.Audience,
	}.Normalize()
}

// Provider is the driver's provider: its methods are the calls of the driver.
// It is safe for concurrent use.
type Provider struct {
	v1alpha1.UnimplementedCSIDriverProviderServer

	config   Config
	settings class.Settings
	// vaults has one client, and so one pool of connections, for each address.
	vaults      map[string]*transit.Client
	digests     digester
	logins      logins
	republished *republished // nil: off
	volumes     *lru.Cache   // digests of the volumes that have their files
	requests    *quota.Pool  // memory of the requests under way
	works       *quota.Pool  // and of what they are answered with
	metrics     *metrics
	audit       *auditlog.Log // nil: off
	log         *slog.Logger
	now         func() time.Time
}

// New checks the configuration. It connects to nothing. The error names all
// that is wrong.
func New(c Config) (*Provider, error) {
	var errs []error
	if c.MountTimeout == 0 {
		c.MountTimeout = DefaultMountTimeout
	}
	if c.MountTimeout < 0 {
		errs = append(errs, fmt.Errorf("mount timeout %s is negative", c.MountTimeout))
	}
	if c.RepublishCacheBytes < 0 {
		errs = append(errs, fmt.Errorf("%d bytes for the republish cache are negative", c.RepublishCacheBytes))
	}
	if len(c.VersionKey) < versionKeySize {
		errs = append(errs, fmt.Errorf("the version key has %d bytes, fewer than %d", len(c.VersionKey), versionKeySize))
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Node != "" && !isSubdomain(c.Node) {
		errs = append(errs, fmt.Errorf("%q is not the name of a node", failure.Clip(c.Node, 120)))
	}
	m := newMetrics(c.BuildVersion)
	c.Vault.Observe, c.Vault.LoggedIn = m.vaultRequest, m.loggedIn
	p := &Provider{config: c, settings: c.settings(), digests: newDigester(), volumes: lru.New(maxVolumes),
		vaults: map[string]*transit.Client{}, republished: newRepublished(c.RepublishCacheBytes), metrics: m,
		log: c.Log, now: time.Now}
	p.audit = auditlog.New(c.Audit, c.Log, m.auditWritten, m.auditLost)
	memory := mountMemory(c.RepublishCacheBytes)
	p.requests = quota.New(memory*5/16, memory*3/16)
	p.works = quota.New(memory/2, memory) // who waits there holds nothing that is not counted
	m.watch(&p.logins, p.republished)
	for _, address := range append([]string{p.settings.VaultAddress}, p.settings.AllowedAddresses...) {
		config := c.Vault
		config.Address = address
		client, err := transit.NewClient(config)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p.vaults[config.Address] = client
		if transit.PlainHTTP(config.Address) {
			m.insecureHTTP.Set(1)
			c.Log.Warn("requests to Vault are not encrypted: everyone on the network can read their tokens "+
				"and plaintext", "address", config.Address)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

// Version says which protocol and which build this is.
func (p *Provider) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{
		Version:        apiVersion,
		RuntimeName:    RuntimeName,
		RuntimeVersion: p.config.BuildVersion,
	}, nil
}
