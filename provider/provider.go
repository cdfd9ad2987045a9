// Package provider serves the Secrets Store CSI driver: it mounts the entries of a ciphertext Secret as plaintext files
// in the volume of a pod.
//
// A mount has these steps. It validates the parameters of the SecretProviderClass, which the pod may override
// (request.go, internal/class). It takes the ciphertext from the request of the kubelet, or reads it from the API
// server as the pod (source.go). If the same volume had the same inputs before, it repeats the response (republish.go).
// Otherwise it logs in to Vault with the pod's service account token, unless a Vault token is cached (logins.go),
// decrypts all entries in one batch (mount.go), and builds the files (files.go, internal/document), each with a version
// that reveals nothing about the content (objectversion.go). The provider has no permissions of its own, in Kubernetes
// or in Vault.
//
// # Errors
//
// The gRPC code of an error determines what happens to the pod. After Canceled, DeadlineExceeded, Unavailable,
// ResourceExhausted or Aborted, the kubelet assumes that the volume may be mounted, and keeps its directory. The driver
// then takes the directory for a finished mount while it is younger than the rotation poll interval, and the pod starts
// with an empty volume (docs/failures.md). So the provider never returns these five codes. It returns only
// InvalidArgument, NotFound, PermissionDenied, Unauthenticated, FailedPrecondition and Internal. Mount ensures that for
// itself, and [Server] for every call.
//
// Every message says what failed, why, and what to check. No message and no log contains tokens, plaintext or
// ciphertext, at any level.
package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"k8s.io/utils/lru"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/auditlog"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/quota"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	// RuntimeName is the runtime name in the response to Version.
	RuntimeName = "secretmanager-provider"

	// DefaultAuthMount is the default of [Config.AuthMount].
	DefaultAuthMount = class.DefaultAuthMount
	// DefaultAudience is the default audience of the --audience flag.
	DefaultAudience = class.DefaultAudience
	// DefaultMountTimeout is the default of [Config.MountTimeout], well below the kubelet's two minutes.
	DefaultMountTimeout = 25 * time.Second

	// apiVersion is the version of the driver's protocol.
	apiVersion = "v1alpha1"
)

// Config configures a [Provider]. Vault and VersionKey are required.
type Config struct {
	// Vault configures the connection to Vault. A class that names no address, or one of its addresses if it has
	// several, uses all of them. Its TLS settings apply to all addresses. New sets Observe, LoggedIn and Avoided.
	Vault transit.Config
	// AllowedAddresses are the additional Vault addresses that a class may name.
	AllowedAddresses []string
	// VaultNamespace is the Vault namespace of a class that names none; empty for the root.
	VaultNamespace string
	// AllowedNamespaces are the additional Vault namespaces that a class may name.
	AllowedNamespaces []string
	// AuthMount is the path below auth/ of the auth mount of a class that names none; DefaultAuthMount if empty.
	AuthMount string
	// AllowedAuthMounts are the additional auth mounts that a class may name. All auth mounts must be of type kubernetes
	// or jwt: other types may ignore the token of the pod, and check the provider's client certificate instead.
	AllowedAuthMounts []string
	// InlineAuth are the auth mounts, of those that a class may use, with inline authentication: see
	// [transit.Client.InlineSession]. Vault must be OpenBao. No response is compared with the role and the service
	// account, so a wrong type of mount is not noticed.
	InlineAuth []string
	// Audience is the audience of the pod's token to log in with, for a class that names none. The empty audience is
	// that of the API server.
	Audience string
	// MountTimeout bounds a mount; DefaultMountTimeout if zero.
	MountTimeout time.Duration
	// RepublishCacheBytes bounds the cache of responses to repeated mounts, in bytes; zero disables the cache.
	RepublishCacheBytes int64
	// VersionKey is the key of the object versions, see the function [VersionKey].
	VersionKey []byte
	// SecretReader reads Secrets as the pod. If it is nil, only the kubelet can deliver ciphertext.
	SecretReader *SecretReader
	// Node is the name of the node in the audit log and in the headers to Vault; may be empty.
	Node string
	// Audit receives the audit records, one line of JSON each; nil for none. One goroutine writes to it at a time. See
	// package auditlog.
	Audit io.Writer
	// Log receives one record for each mount; slog.Default() if nil.
	Log *slog.Logger
	// BuildVersion is the runtime version in the response to Version.
	BuildVersion string
}

// settings returns the settings that apply to classes.
func (c *Config) settings() class.Settings {
	return class.Settings{
		VaultAddress: c.Vault.Address, AllowedAddresses: c.AllowedAddresses,
		VaultNamespace: c.VaultNamespace, AllowedNamespaces: c.AllowedNamespaces,
		AuthMount: c.AuthMount, AllowedAuthMounts: c.AllowedAuthMounts, Audience: c.Audience,
	}.Normalize()
}

// Provider implements the provider protocol of the driver. It is safe for concurrent use.
type Provider struct {
	v1alpha1.UnimplementedCSIDriverProviderServer

	config     Config
	settings   class.Settings
	inlineAuth []string                   // auth mounts
	vaults     map[string]*transit.Client // by address, or by all addresses of a cluster
	digests    digester
	logins     logins
	responses  *republishCache // nil: off
	volumes    *lru.Cache      // digests of the mounted volumes
	requests   *quota.Pool     // memory to parse requests
	works      *quota.Pool     // memory to decrypt and respond
	metrics    *metrics
	audit      *auditlog.Log // nil: off
	log        *slog.Logger
	now        func() time.Time
}

// New returns a provider for a valid configuration. It does not connect. The error names all problems.
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
		errs = append(errs, fmt.Errorf("%q is not the name of a node", display.Clip(c.Node, 120)))
	}
	m := newMetrics(c.BuildVersion)
	c.Vault.Observe, c.Vault.LoggedIn = m.vaultRequest, m.loginFinished
	c.Vault.Avoided = func(address string, err error) {
		c.Log.Warn("avoiding a server of Vault until it responds", "address", address, "error", err)
	}
	p := &Provider{config: c, settings: c.settings(), digests: newDigester(), volumes: lru.New(maxVolumes),
		vaults: map[string]*transit.Client{}, responses: newRepublishCache(c.RepublishCacheBytes), metrics: m,
		log: c.Log, now: time.Now}
	p.audit = auditlog.New(c.Audit, c.Log, m.auditWritten, m.auditLost)
	memory := mountMemory(c.RepublishCacheBytes)
	p.requests = quota.New(memory*5/16, memory*3/16)
	p.works = quota.New(memory/2, memory) // waiting mounts hold only memory that requests counts
	m.registerCaches(&p.logins, p.responses)
	for _, mount := range c.InlineAuth {
		mount = strings.Trim(mount, "/")
		p.inlineAuth = append(p.inlineAuth, mount)
		if err := checkInlineAuth(mount, p.settings); err != nil {
			errs = append(errs, err)
		}
	}
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

// Version returns the protocol version and the build version.
func (p *Provider) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{
		Version:        apiVersion,
		RuntimeName:    RuntimeName,
		RuntimeVersion: p.config.BuildVersion,
	}, nil
}
