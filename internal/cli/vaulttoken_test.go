package cli

import (
	"os"
	osuser "os/user"
	"path/filepath"
	"strings"
	"testing"
)

// The token is read from where the vault command reads it, and never from the working directory, which
// may be a cloned repository.
func TestVaultToken(t *testing.T) {
	check := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cwd, home := t.TempDir(), t.TempDir()
	t.Chdir(cwd)
	write := func(path, text string, mode os.FileMode) string {
		t.Helper()
		check(t, os.WriteFile(path, []byte(text), mode))
		return path
	}
	write(".vault-token", "planted", 0o600)
	write("helper", "#!/bin/sh\necho planted\n", 0o700)
	write(".vault", `token_helper = "helper"`, 0o600)
	write(filepath.Join(home, ".vault-token"), " s.home\n", 0o600)
	helper := write(filepath.Join(home, "helper"), "#!/bin/sh\ntest \"$1\" = get && echo s.helped\n", 0o700)
	failing := write(filepath.Join(home, "failing"), "#!/bin/sh\necho s.secret\necho s.secret >&2\nexit 3\n", 0o700)
	empty := write(filepath.Join(home, "empty"), "#!/bin/sh\n", 0o700)
	config := func(text string) string {
		dir := t.TempDir()
		return write(filepath.Join(dir, "config"), text, 0o600)
	}
	account, err := osuser.Current()
	check(t, err)
	wantAccount, err := os.ReadFile(filepath.Join(account.HomeDir, ".vault-token"))
	accountError := ""
	if err != nil {
		accountError = "~/.vault-token does not exist"
	}
	for name, test := range map[string]struct {
		env         map[string]string
		token, says string
	}{
		"VAULT_TOKEN": {map[string]string{"VAULT_TOKEN": "s.env", "HOME": home,
			"VAULT_CONFIG_PATH": config(`token_helper = "` + helper + `"`)}, "s.env", ""},
		"HOME":          {map[string]string{"HOME": home}, "s.home", ""},
		"no HOME":       {nil, strings.TrimSpace(string(wantAccount)), accountError},
		"relative HOME": {map[string]string{"HOME": "."}, strings.TrimSpace(string(wantAccount)), accountError},
		"helper": {map[string]string{"HOME": home,
			"VAULT_CONFIG_PATH": config(`token_helper = "` + helper + `"`)}, "s.helped", ""},
		"configuration without": {map[string]string{"HOME": home, "VAULT_CONFIG_PATH": config("# nothing\n")},
			"s.home", ""},
		"relative helper": {map[string]string{"HOME": home,
			"VAULT_CONFIG_PATH": config(`token_helper = "helper"`)}, "", "it must be an absolute path"},
		"relative configuration": {map[string]string{"HOME": home, "VAULT_CONFIG_PATH": ".vault"}, "",
			"it must be an absolute path"},
		"configuration of others": {map[string]string{"HOME": home,
			"VAULT_CONFIG_PATH": config("$ANSIBLE_VAULT;1.1\n")}, "", "is not of the form"},
		"helper that fails": {map[string]string{"HOME": home,
			"VAULT_CONFIG_PATH": config(`token_helper = "` + failing + `"`)}, "", "failed: exit status 3"},
		"helper without a token": {map[string]string{"HOME": home,
			"VAULT_CONFIG_PATH": config(`token_helper = "` + empty + `"`)}, "", "has none"},
		"nothing": {map[string]string{"HOME": t.TempDir()}, "", "VAULT_TOKEN is not set and ~/.vault-token does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Factory{Environment: Environment{Getenv: func(name string) string { return test.env[name] }}}
			token, err := p.VaultToken()
			said := ""
			if err != nil {
				said = err.Error()
			}
			if token != test.token || (test.says == "") != (err == nil) || !strings.Contains(said, test.says) {
				t.Errorf("token %q, error %q", token, said)
			}
			if strings.Contains(said, "secret") {
				t.Errorf("the error repeats the output of the helper: %s", said)
			}
		})
	}
	// In ~/.vault, the usual location.
	write(filepath.Join(home, ".vault"), `token_helper = "`+helper+`"`, 0o600)
	p := &Factory{
		Environment: Environment{Getenv: func(name string) string { return map[string]string{"HOME": home}[name] }}}
	if token, err := p.VaultToken(); token != "s.helped" || err != nil {
		t.Errorf("~/.vault: token %q, error %v", token, err)
	}
}
