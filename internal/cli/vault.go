package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/secretmanager-io/secretmanager/transit"
)

// retryFor bounds the retries while Vault does not respond and a person waits.
const retryFor = 5 * time.Second

// VaultSettings returns how to reach Vault by --vault-addr, VAULT_ADDR and the variables of the
// vault command. No address comes from a manifest or from the cluster, as its author would get the
// user's credentials.
func (p *Factory) VaultSettings() transit.Config {
	c := transit.FromEnvironment(p.Getenv)
	c.Address = cmp.Or(strings.Join(p.VaultAddress, ","), c.Address)
	c.InsecureHTTP = c.InsecureHTTP || p.InsecureHTTP
	c.RetryFor, c.RequestTimeout = retryFor, p.vault.timeout
	if c.RequestTimeout == 0 {
		c.RequestTimeout = -1
	}
	return c
}

// vaultConfig is VaultSettings with bounds on how long the command waits, which a terminal shows. doctor has its own.
func (p *Factory) vaultConfig() (transit.Config, error) {
	c := p.VaultSettings()
	c.Wrap = p.vault.wrap
	if c.Address == "" {
		return c, WithHint(errors.New("VAULT_ADDR is not set"),
			"export VAULT_ADDR=https://HOST:8200, as for the vault command, or name the address with --vault-addr")
	}
	return c, nil
}

// VaultSession returns a session with the token of the user.
func (p *Factory) VaultSession() (*transit.Session, error) { return p.LimitedVaultSession(0) }

// LimitedVaultSession returns a session with at most qps requests a second; 0: no limit.
func (p *Factory) LimitedVaultSession(qps float64) (*transit.Session, error) {
	config, err := p.vaultConfig()
	if err != nil {
		return nil, err
	}
	config.QPS = qps
	token, err := p.VaultToken()
	if err != nil {
		return nil, err
	}
	client, err := transit.NewClient(config)
	if err != nil {
		return nil, err
	}
	return client.Session(p.Getenv(api.EnvVaultNamespace), transit.StaticToken(token)), nil
}

// VaultAPI returns a client for policies, roles and mounts, which package transit does not cover.
func (p *Factory) VaultAPI(ctx context.Context) (*api.Client, error) {
	config, err := p.vaultConfig()
	if err != nil {
		return nil, err
	}
	token, err := p.VaultToken()
	if err != nil {
		return nil, err
	}
	cluster, err := transit.NewClient(config) // checks the configuration
	if err != nil {
		return nil, err
	}
	config.Address = cluster.Responding(ctx)
	client, err := p.AuditedVaultAPI(config)
	if err != nil {
		return nil, err
	}
	client.SetToken(token)
	client.SetNamespace(p.Getenv(api.EnvVaultNamespace))
	return client, nil
}

// AuditedVaultAPI returns a client of one address without a token, whose requests name the verb in Vault's audit
// log.
func (p *Factory) AuditedVaultAPI(config transit.Config) (*api.Client, error) {
	client, err := newVaultAPI(config)
	if err != nil {
		return nil, err
	}
	headers := client.Headers() // a copy
	p.Audit.SetHeaders(headers)
	client.SetHeaders(headers)
	return client, nil
}

// newVaultAPI returns a client without a token.
func newVaultAPI(config transit.Config) (*api.Client, error) {
	conf := api.DefaultConfig()
	conf.Error = nil // an error in the environment of the process, which Getenv replaces
	conf.Address, conf.AgentAddress = config.Address, ""
	conf.DisableRedirects = config.NoRedirects
	// The audit headers go to the clients that doctor clones, too.
	conf.CloneHeaders = true
	// or the client follows redirects
	conf.HttpClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if err := conf.ConfigureTLS(&api.TLSConfig{
		CACert: config.CACert, CAPath: config.CAPath, ClientCert: config.ClientCert, ClientKey: config.ClientKey,
		TLSServerName: config.TLSServerName, Insecure: config.Insecure,
	}); err != nil {
		return nil, fmt.Errorf("preparing TLS to Vault: %w", err)
	}
	if !config.InsecureHTTP {
		// The client may still follow a redirect by itself.
		conf.HttpClient.Transport = transit.RefusePlainHTTP(conf.HttpClient.Transport)
	}
	if config.Wrap != nil {
		conf.HttpClient.Transport = config.Wrap(conf.HttpClient.Transport)
	}
	conf.Timeout = 0
	if config.RequestTimeout > 0 {
		conf.Timeout = config.RequestTimeout + time.Second // the transport is first, and says which server did not respond
	}
	conf.CheckRetry = func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			return false, err // a person has waited long enough
		}
		return api.DefaultRetryPolicy(ctx, resp, err)
	}
	client, err := api.NewClient(conf)
	if err != nil {
		return nil, fmt.Errorf("preparing the Vault client: %w", err)
	}
	// api.NewClient has read the environment of the process.
	client.ClearToken()
	client.ClearNamespace()
	return client, nil
}
