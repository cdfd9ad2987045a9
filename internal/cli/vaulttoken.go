package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsimple"
	"github.com/hashicorp/vault/api"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

// vaultConfigPath names the vault command's own configuration, ~/.vault by default.
const vaultConfigPath = "VAULT_CONFIG_PATH"

// VaultToken returns the token that the vault command would use: VAULT_TOKEN, that of the token
// helper of ~/.vault, or ~/.vault-token. It reads nothing from the working directory, which may be
// a clone of an untrusted repository. Package cliconfig of Vault's API would do so if HOME is not
// set, or if the path of the helper is relative.
func (p *Factory) VaultToken() (string, error) {
	if token := strings.TrimSpace(p.Getenv(api.EnvVaultToken)); token != "" {
		return token, nil
	}
	home := homeDir(p.Getenv)
	helper, err := p.tokenHelper(home)
	if err != nil {
		return "", err
	}
	if helper != "" {
		defer p.Wait("the token helper " + helper)()
		return runTokenHelper(helper)
	}
	if home == "" {
		return "",
			WithHint(errors.New("no Vault token: VAULT_TOKEN is not set, and no home directory with .vault-token is known"),
				"set VAULT_TOKEN, or HOME to an absolute path")
	}
	text, err := os.ReadFile(filepath.Join(home, ".vault-token"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the Vault token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", WithHint(errors.New("no Vault token: VAULT_TOKEN is not set and ~/.vault-token does not exist"),
			"log in with: vault login")
	}
	return token, nil
}

// homeDir returns HOME, or else the home directory of the account. It is empty if neither is an
// absolute path.
func homeDir(getenv func(string) string) string {
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return home
	}
	if u, err := osuser.Current(); err == nil && filepath.IsAbs(u.HomeDir) {
		return u.HomeDir
	}
	return ""
}

// tokenHelper returns the token helper in the configuration of the vault command; empty for none.
func (p *Factory) tokenHelper(home string) (string, error) {
	file := p.Getenv(vaultConfigPath)
	switch {
	case file == "" && home == "":
		return "", nil
	case file == "":
		file = filepath.Join(home, ".vault")
	case strings.HasPrefix(file, "~/") && home != "":
		file = filepath.Join(home, file[2:])
	}
	if !filepath.IsAbs(file) {
		return "", fmt.Errorf("%s is %q: it must be an absolute path", vaultConfigPath, file)
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the configuration of the vault command: %w", err)
	}
	var config struct {
		TokenHelper string `hcl:"token_helper,optional"`
	}
	if err := hclsimple.Decode("vault.hcl", text, nil, &config); err != nil {
		return "",
			WithHint(fmt.Errorf("the configuration of the vault command %s is not of the form token_helper = \"PATH\"",
				display.Line(file)),
				"or set VAULT_TOKEN, which needs no helper")
	}
	if config.TokenHelper != "" && !filepath.IsAbs(config.TokenHelper) {
		return "",
			WithHint(fmt.Errorf("token_helper in %s is %q: it must be an absolute path", display.Line(file), config.TokenHelper),
				"or set VAULT_TOKEN, which needs no helper")
	}
	return config.TokenHelper, nil
}

// runTokenHelper runs a token helper. Its standard error may contain a secret and is not shown.
func runTokenHelper(helper string) (string, error) {
	out, err := exec.Command(helper, "get").Output()
	if err != nil {
		return "", WithHint(fmt.Errorf("no Vault token: the token helper %s failed: %w", display.Line(helper), err),
			"to see why, run: "+helper+" get")
	}
	token := strings.TrimSpace(string(out))
	if token == "" {
		return "",
			WithHint(fmt.Errorf("no Vault token: VAULT_TOKEN is not set, and the token helper %s has none",
				display.Line(helper)), "log in with: vault login")
	}
	return token, nil
}
