package vaultsetup

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// WriteCommands writes a shell script of vault commands, with the policies in
// it, that does what [Compare] and [Change.Apply] do on a Vault that has none
// of it yet. The setup must have passed [Setup.Check].
func (s Setup) WriteCommands(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, `# What SecretManager needs in Vault for %s.
# Read it, and run it with the vault command; or let "secretmanager vault-setup
# --apply" do it, which also adds to roles that exist already.

# The engine and the key. Leave out what exists. "derived" is what binds a
# ciphertext to its place; it cannot be set on a key later.
vault secrets enable -path=%s transit
vault write %s type=aes256-gcm96 derived=true
`, s.Key, s.Key.Mount, s.Key)
	for _, p := range s.Policies() {
		fmt.Fprintf(out, "\nvault policy write %s - <<'EOF'\n%sEOF\n", p.Name, p.HCL())
	}
	for _, r := range s.Roles() {
		fmt.Fprintf(out, "\n# The %s logs in as service account %s.\n", r.Who, r.who())
		if r.Who == "rotator" {
			fmt.Fprintf(out, "# If the role exists for other keys, put their policies into token_policies too:\n"+
				"# this command replaces them.\n")
		}
		if slices.ContainsFunc(r.fields(), field.named) {
			// The vault command takes texts by name as JSON only.
			fmt.Fprintf(out, "vault write auth/%s/role/%s - <<'EOF'\n%sEOF\n", s.AuthMount, r.Name, r.json())
			continue
		}
		fmt.Fprintf(out, "vault write auth/%s/role/%s", s.AuthMount, r.Name)
		for _, f := range r.fields() {
			fmt.Fprintf(out, " \\\n    %s=%s", f.name, f.text())
		}
		fmt.Fprintln(out)
	}
	return out.Flush()
}

// named is whether the value is texts by name.
func (f field) named() bool {
	_, ok := f.value.(map[string]string)
	return ok
}

func (r Role) json() string {
	var b strings.Builder
	b.WriteString("{\n")
	for i, f := range r.fields() {
		if i > 0 {
			b.WriteString(",\n")
		}
		value, err := json.Marshal(f.value)
		if err != nil {
			panic(err) // texts and truth values can always be written
		}
		fmt.Fprintf(&b, "  %q: %s", f.name, value)
	}
	b.WriteString("\n}\n")
	return b.String()
}

// text is the value as an argument of the vault command.
func (f field) text() string {
	switch v := f.value.(type) {
	case []string:
		return shellWord(strings.Join(v, ","))
	default:
		return shellWord(fmt.Sprint(v))
	}
}

// shellWord quotes a word for a shell where it has to be.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:,@-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
