package vaultsetup

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

// WriteCommands writes a shell script of vault commands and policies that does the same as
// [Compare] and [Change.Apply]: it first checks that existing objects belong to the setup,
// and stops before the first change if one does not. The setup must have passed
// [Setup.Check].
func (s Setup) WriteCommands(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, `#!/bin/sh
# What SecretManager needs in Vault for %s.
# Read it, and run it with the vault command, or run "secretmanager vault-setup
# --apply", which does the same. It stops before the first change if a policy or a
# role of that name has another owner.
set -euf
export VAULT_FORMAT=table
`, s.Key)
	out.WriteString(shellFunctions)
	s.writeChecks(out)
	mount, policies, roles := display.ShellWord(s.Key.Mount), s.Policies(), s.Roles()
	fmt.Fprintf(out, "\nunchanged=\n[ -n \"$engine\" ] || vault secrets enable -path=%s transit\n", mount)
	for _, p := range policies {
		fmt.Fprintf(out, "\nvault policy write %s - <<'EOF'\n%sEOF\n", display.ShellWord(p.Name), p.HCL())
	}
	fmt.Fprintf(out, `
# "derived" binds a ciphertext to its location; it cannot be set on a key later.
exists %s || vault write %[1]s type=aes256-gcm96 derived=true
`, display.ShellWord(s.Key.String()))
	for _, r := range roles {
		path := display.ShellWord(s.rolePath(r))
		fmt.Fprintf(out, "\n# The %s logs in as service account %s.\n", r.Who, r.subject())
		fmt.Fprintf(out, "if exists %s; then\n", path)
		fmt.Fprintf(out, "    policies %s %s\n", path, display.ShellWords(r.Policies...))
		fmt.Fprintf(out, "    vault write %s", path)
		if s.AuthType == AuthJWT {
			// Vault resets these fields of a role that is written without them.
			fmt.Fprintf(out, " role_type=jwt bound_claims_type=\"$(vault read -field=bound_claims_type %s)\"", path)
		}
		fmt.Fprintf(out, " token_policies=\"$policies\"\nelse\n    vault write %s", path)
		if slices.ContainsFunc(r.fields(), field.needsJSON) {
			fmt.Fprintf(out, " - <<'EOF'\n%sEOF\nfi\n", r.json())
			continue
		}
		for _, f := range r.fields() {
			fmt.Fprintf(out, " \\\n        %s=%s", f.name, f.text())
		}
		fmt.Fprintln(out, "\nfi")
	}
	return out.Flush()
}

// shellFunctions are the functions of the script.
const shellFunctions = `
unchanged='nothing was changed: '
stop() {
    printf 'error: %s%s\n' "$unchanged" "$1" >&2
    exit 1
}

# exists PATH: succeeds if the path exists. Other errors stop the script.
exists() {
    if output=$(vault read "$1" 2>&1); then return 0; fi
    case $output in *"No value found at $1"*) return 1 ;; esac
    stop "reading $1: $output"
}

# has PATH FIELD VALUE: stops unless the field's first line is the value.
has() {
    value=$(vault read -field="$2" "$1" 2>/dev/null | head -n 1)
    [ "$value" = "$3" ] || stop "$1 exists and is not part of this setup: its $2 is \"$value\" and not \"$3\""
}

# policies ROLE POLICY...: sets $policies to the role's policies and the given ones.
policies() {
    policies=$(vault read -field=token_policies "$1")
    policies=${policies#\[} policies=${policies%\]}
    shift
    for policy; do
        case " $policies " in *" $policy "*) ;; *) policies="$policies $policy" ;; esac
    done
    policies=$(echo $policies | tr ' ' ,)
}
`

// writeChecks writes the part of the script that reads what exists.
func (s Setup) writeChecks(out *bufio.Writer) {
	mount, key := display.ShellWord(s.Key.Mount), display.ShellWord(s.Key.String())
	fmt.Fprintf(out, `
# Existing objects must be part of this setup.
engine=$(vault secrets list)
engine=$(printf '%%s\n' "$engine" | awk '$1 == "%s/" { print $2 }')
case $engine in
'' | transit) ;;
*) stop "%[1]s is a secrets engine of type $engine, not transit" ;;
esac
if [ -n "$engine" ] && exists %s; then
    has %[2]s supports_encryption true
fi
`, s.Key.Mount, key)
	if s.PerNamespace {
		marker := strings.TrimSuffix(namespaceMarker(s.Key).Name, s.Key.Name)
		fmt.Fprintf(out, `
# Each key must have been made for the namespace of its name, whose pods decrypt with it.
if [ -n "$engine" ]; then
    keys=$(vault list %s/keys 2>&1) || case $keys in
    *"No value found at "*) keys= ;;
    *) stop "listing %[1]s/keys: $keys" ;;
    esac
    for key in $(printf '%%s\n' "$keys" | tail -n +3); do
        exists "sys/policies/acl/%s$key" ||
            stop "%[1]s/keys/$key was not made for a namespace, and the pods of namespace $key would decrypt with it"
    done
fi
`, mount, marker)
	}
	for _, p := range s.Policies() {
		path := display.ShellWord("sys/policies/acl/" + p.Name)
		fmt.Fprintf(out, "if exists %s; then\n    has %[1]s policy %s\nfi\n", path, display.ShellWord(p.titleLine()))
	}
	for _, r := range s.Roles() {
		path := display.ShellWord(s.rolePath(r))
		fmt.Fprintf(out, "if exists %s; then\n", path)
		for _, f := range r.binding() {
			fmt.Fprintf(out, "    has %s %s %s\n", path, f.name, display.ShellWord(f.printed()))
		}
		fmt.Fprintln(out, "fi")
	}
}

// printed returns the value as "vault read" prints it.
func (f field) printed() string { return fmt.Sprint(f.value) }

// needsJSON reports whether the vault command would misinterpret the value as an argument:
// it splits lists at commas, reads "@FILE" and "-" from a file or standard input, and has
// no syntax for maps.
func (f field) needsJSON() bool {
	special := func(s string) bool {
		return strings.HasPrefix(s, "@") || strings.HasPrefix(s, `\`) || s == "-"
	}
	switch v := f.value.(type) {
	case map[string]string:
		return true
	case []string:
		return slices.ContainsFunc(v, func(s string) bool { return special(s) || strings.Contains(s, ",") })
	case string:
		return special(v)
	}
	return false
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
			panic(err) // these types can always be encoded
		}
		fmt.Fprintf(&b, "  %q: %s", f.name, value)
	}
	b.WriteString("\n}\n")
	return b.String()
}

// text returns the value as an argument of the vault command.
func (f field) text() string {
	switch v := f.value.(type) {
	case []string:
		return display.ShellWord(strings.Join(v, ","))
	default:
		return display.ShellWord(fmt.Sprint(v))
	}
}
