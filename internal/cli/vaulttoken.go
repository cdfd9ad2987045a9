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

	"github.com/secretmanager-io/secretmanager/internal/display"

	"github.com/hashicorp/hcl/v2/hclsimple"
	"github.com/hashicorp/vault/api"
)

// vaultConfigPath names the vault command's own configuration, ~/.vault by default.
const vaultConfigPath = "VAULT_CONFIG_PATH"

// VaultToken finds the token where the vault command would: in VAULT_TOKEN, with the
// token helper of ~/.vault, or in ~/.vault-token. Nothing is read from the working
// directory, which may be a repository of somebody else's. Package cliconfig of
// Vault's API would do that where HOME is not set, or the helper's path is relative.
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
		return tokenOf(helper)
	}
	if home == "" {
		return "", WithHint(errors.New("no Vault token: VAULT_TOKEN is not set, and there is no home directory to look for .vault-token in"),
			"set VAULT_TOKEN, or HOME to an absolute path")
	}
	text, err := os.ReadFile(filepath.Join(home, ".vault-token"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the Vault token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", WithHint(errors.New("no Vault token: VAULT_TOKEN is not set and ~/.vault-token is not there"), "log in with: vault login")
	}
	return token, nil
}

// homeDir is the user's home directory: HOME, or else that of the account. It is
// empty where neither is an absolute path.
func homeDir(getenv func(string) string) string {
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return home
	}
	if u, err := osuser.Current(); err == nil && filepath.IsAbs(u.HomeDir) {
		return u.HomeDir
	}
	return ""
}

// tokenHelper is the program that keeps the token, as the configuration of the vault
// command names it; empty for none.
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
		return "", WithHint(fmt.Errorf("the configuration of the vault command %s is not of the form token_helper = \"PATH\"", display.Line(file)),
			"VAULT_TOKEN does without it")
	}
	if config.TokenHelper != "" && !filepath.IsAbs(config.TokenHelper) {
		return "", WithHint(fmt.Errorf("token_helper in %s is %q: it must be an absolute path", display.Line(file), config.TokenHelper),
			"VAULT_TOKEN does without it")
	}
	return config.TokenHelper, nil
}

// tokenOf asks a token helper. What it writes to standard error is not repeated: it
// may be anything.
func tokenOf(helper string) (string, error) {
	out, err := exec.Command(helper, "get").Output()
	if err != nil {
		return "", WithHint(fmt.Errorf("no Vault token: the token helper %s failed: %w", display.Line(helper), err), "run it by itself: "+helper+" get")
	}
	token := strings.TrimSpace(string(out))
	if token == "" {
		return "", WithHint(fmt.Errorf("no Vault token: VAULT_TOKEN is not set, and the token helper %s has none", display.Line(helper)), "log in with: vault login")
	}
	return token, nil
}
