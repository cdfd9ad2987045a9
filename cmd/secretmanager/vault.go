package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/secretmanager-io/secretmanager/transit"
)

// vaultPatience is how long a person waits for a Vault that does not answer.
const vaultPatience = 5 * time.Second

// vaultSettings are how to reach Vault, as far as the user says: --vault-addr or
// VAULT_ADDR, and the variables of the vault command. No address ever comes from
// what a verb looks at, since its author would get the user's credentials.
func (p *program) vaultSettings() transit.Config {
	c := transit.FromEnvironment(p.getenv)
	c.Address = cmp.Or(p.vaultAddr, c.Address)
	c.InsecureHTTP = c.InsecureHTTP || p.insecureHTTP
	c.RetryFor = vaultPatience
	return c
}

func (p *program) vaultConfig() (transit.Config, error) {
	c := p.vaultSettings()
	if c.Address == "" {
		return c, hinted(errors.New("VAULT_ADDR is not set"),
			"export VAULT_ADDR=https://HOST:8200, as for the vault command, or name the address with --vault-addr")
	}
	return c, nil
}

// vault returns a session as the user of the vault command.
func (p *program) vault() (*transit.Session, error) { return p.limitedVault(0) }

// limitedVault asks Vault no more often than that in a second; 0: no limit.
func (p *program) limitedVault(qps float64) (*transit.Session, error) {
	config, err := p.vaultConfig()
	if err != nil {
		return nil, err
	}
	config.QPS = qps
	token, err := p.vaultToken()
	if err != nil {
		return nil, err
	}
	client, err := transit.NewClient(config)
	if err != nil {
		return nil, err
	}
	return client.Session(p.getenv(api.EnvVaultNamespace), transit.StaticToken(token)), nil
}

// vaultAdmin returns the client for what is no business of package transit:
// policies, roles and mounts.
func (p *program) vaultAdmin() (*api.Client, error) {
	config, err := p.vaultConfig()
	if err != nil {
		return nil, err
	}
	token, err := p.vaultToken()
	if err != nil {
		return nil, err
	}
	if _, err := transit.NewClient(config); err != nil { // the same checks, the same words
		return nil, err
	}
	client, err := p.auditedVaultAPI(config)
	if err != nil {
		return nil, err
	}
	client.SetToken(token)
	client.SetNamespace(p.getenv(api.EnvVaultNamespace))
	return client, nil
}

// auditedVaultAPI is vaultAPI, and its requests name the verb in Vault's audit log.
func (p *program) auditedVaultAPI(config transit.Config) (*api.Client, error) {
	client, err := vaultAPI(config)
	if err != nil {
		return nil, err
	}
	headers := client.Headers() // a copy
	p.audit.SetHeaders(headers)
	client.SetHeaders(headers)
	return client, nil
}

// vaultAPI makes Vault's own client, without a token.
func vaultAPI(config transit.Config) (*api.Client, error) {
	conf := api.DefaultConfig()
	conf.Error = nil // of the environment of the process, which p.getenv stands for
	conf.Address, conf.AgentAddress = config.Address, ""
	conf.DisableRedirects = config.NoRedirects
	// The audit headers go to the clients that doctor clones, too.
	conf.CloneHeaders = true
	conf.HttpClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // Vault's client has a rule of its own
	if err := conf.ConfigureTLS(&api.TLSConfig{
		CACert: config.CACert, CAPath: config.CAPath, ClientCert: config.ClientCert, ClientKey: config.ClientKey,
		TLSServerName: config.TLSServerName, Insecure: config.Insecure,
	}); err != nil {
		return nil, fmt.Errorf("preparing TLS to Vault: %w", err)
	}
	if !config.InsecureHTTP {
		// It follows a redirect without a word to us.
		conf.HttpClient.Transport = transit.RefusePlainHTTP(conf.HttpClient.Transport)
	}
	client, err := api.NewClient(conf)
	if err != nil {
		return nil, fmt.Errorf("preparing the Vault client: %w", err)
	}
	// What api.NewClient took from the environment of the process does not act.
	client.ClearToken()
	client.ClearNamespace()
	return client, nil
}
