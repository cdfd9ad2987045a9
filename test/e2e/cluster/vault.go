package cluster

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/secretmanager-io/secretmanager/test/e2e/images"
)

const (
	vaultToken = "root"
	// vaultNodePort is Vault's port on the node. kind forwards a port of the loopback
	// interface to it, as for the API server, so it does not matter whether the node's
	// own address can be reached.
	vaultNodePort = 30820
)

//go:embed vault.yaml
var vaultManifest string

// Vault is the access to the Vault in the cluster. The engine transit is
// enabled, and the method kubernetes trusts the cluster's service accounts.
type Vault struct {
	// Address is the URL for the tests, outside the cluster.
	Address string
	// Inside is the URL for pods.
	Inside string
	// Token is the root token.
	Token string
}

// OnNode returns the URL for programs on the node.
func (v Vault) OnNode(node string) string {
	return fmt.Sprintf("http://%s", net.JoinHostPort(node, strconv.Itoa(vaultNodePort)))
}

// applyVault installs Vault.
func (c *Cluster) applyVault(ctx context.Context) error {
	t, err := template.New("vault.yaml").Parse(vaultManifest)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	err = t.Execute(&text, map[string]any{
		"Image": c.Images.Vault, "Stock": c.Images.Source == images.Pull, "Token": vaultToken, "NodePort": vaultNodePort,
	})
	if err != nil {
		return err
	}
	return c.ApplyYAML(ctx, text.String())
}

// waitVault waits until Vault responds to this process, and sets it up.
func (c *Cluster) waitVault(ctx context.Context) error {
	if err := c.WaitDeployment(ctx, "vault", "vault"); err != nil {
		return err
	}
	address, err := c.docker.Run(ctx, "port", ControlPlane, fmt.Sprintf("%d/tcp", vaultNodePort))
	if err != nil {
		return fmt.Errorf("looking for the port that leads to Vault: %w", err)
	}
	vault := Vault{Address: "http://" + address, Inside: "http://vault.vault.svc:8200", Token: vaultToken}
	// A new Service refuses connections until kube-proxy has seen it.
	err = Wait(ctx, time.Minute, "Vault to respond at "+vault.Address, func(ctx context.Context) (bool, string, error) {
		err := vault.Do(ctx, http.MethodGet, "sys/health", nil, nil)
		return err == nil, "", err
	})
	if err != nil {
		return err
	}
	if err := vault.setUp(ctx); err != nil {
		return fmt.Errorf("setting up Vault: %w", err)
	}
	c.Vault = vault
	return nil
}

// setUp enables the engine and the auth method of the tests, unless an existing Vault has them.
func (v Vault) setUp(ctx context.Context) error {
	for _, mount := range []struct{ path, kind string }{{"sys/mounts/transit", "transit"},
		{"sys/auth/kubernetes", "kubernetes"}} {
		err := v.Do(ctx, http.MethodPost, mount.path, map[string]any{"type": mount.kind}, nil)
		if err != nil && !strings.Contains(err.Error(), "path is already in use") {
			return err
		}
	}
	// Vault reads its own service account's token and the API server's certificate in its pod.
	return v.Do(ctx, http.MethodPost, "auth/kubernetes/config",
		map[string]any{"kubernetes_host": "https://kubernetes.default.svc"}, nil)
}

// Do sends a request to the path below /v1/ as root, with in as JSON, and reads
// the response into out. Either can be nil. A response other than 2xx is an error with
// Vault's messages.
func (v Vault) Do(ctx context.Context, method, path string, in, out any) error {
	doing := fmt.Sprintf("Vault: %s %s", method, path)
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, v.Address+"/v1/"+path, body)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	request.Header.Set("X-Vault-Token", v.Token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%s: reading the response: %w", doing, err)
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s: %s", doing, response.Status, bytes.TrimSpace(text))
	}
	if out == nil || len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s: reading the response: %w", doing, err)
	}
	return nil
}

// install installs what every test needs, and waits for it all at once.
func (c *Cluster) install(ctx context.Context) error {
	for _, f := range []func(context.Context) error{c.applyDrivers, c.applyVault, c.waitDrivers, c.waitVault} {
		if err := f(ctx); err != nil {
			return err
		}
	}
	return nil
}
