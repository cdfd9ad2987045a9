package vaultsetup

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// WriteTerraform writes the setup as resources of Terraform's vault provider. The
// setup must have passed [Setup.Check].
func (s Setup) WriteTerraform(w io.Writer) error {
	out := bufio.NewWriter(w)
	mount, key := label(s.Key.Mount), label(s.Key.Name)
	fmt.Fprintf(out, `# What SecretManager needs in Vault for %s, for the provider hashicorp/vault.
# Import existing objects, or replace the resource by their name.

`, s.Key)
	writeBlock(out, "resource", "vault_mount", mount,
		[]attribute{{"path", quote(s.Key.Mount)}, {"type", quote("transit")}}, "")
	writeBlock(out, "resource", "vault_transit_secret_backend_key", key, []attribute{
		{"backend", "vault_mount." + mount + ".path"},
		{"name", quote(s.Key.Name)},
		{"type", quote("aes256-gcm96")},
		{"derived", "true"},
	}, `
  lifecycle {
    # Without the key nothing decrypts.
    prevent_destroy = true
    # The rotator and secretmanager trim raise them; Terraform would lower them again.
    ignore_changes = [min_decryption_version, min_encryption_version]
  }
`)
	if s.PerNamespace {
		auth := label(s.AuthMount)
		writeBlock(out, "data", "vault_auth_backend", auth, []attribute{{"path", quote(s.AuthMount)}}, "")
		s.Accessor = "${data.vault_auth_backend." + auth + ".accessor}"
	}
	for _, p := range s.Policies() {
		writeBlock(out, "resource", "vault_policy", label(p.Name), []attribute{{"name", quote(p.Name)}},
			"\n  policy = <<EOT\n"+p.HCL()+"EOT\n")
	}
	for _, r := range s.Roles() {
		fmt.Fprintf(out, "# The %s logs in as service account %s.\n", r.Who, r.subject())
		if r.Who == "rotator" {
			fmt.Fprint(out, "# Several keys share this role, with the policies of all of them.\n")
		}
		kind := "vault_kubernetes_auth_backend_role"
		if s.AuthType == AuthJWT {
			kind = "vault_jwt_auth_backend_role"
		}
		attributes := []attribute{{"backend", quote(s.AuthMount)}, {"role_name", quote(r.Name)}}
		for _, f := range r.fields() {
			attributes = append(attributes, attribute{f.name, f.terraform()})
		}
		writeBlock(out, "resource", kind, label(r.Name), attributes, "")
	}
	return out.Flush()
}

type attribute struct{ name, value string }

// writeBlock writes a block in the format of terraform fmt.
func writeBlock(out io.Writer, kind, what, label string, attributes []attribute, rest string) {
	fmt.Fprintf(out, "%s %q %q {\n", kind, what, label)
	width := 0
	for _, a := range attributes {
		width = max(width, len(a.name))
	}
	for _, a := range attributes {
		fmt.Fprintf(out, "  %-*s = %s\n", width, a.name, a.value)
	}
	fmt.Fprintf(out, "%s}\n\n", rest)
}

// terraform returns the value as an expression. Durations are in seconds, and policies
// are references, so that Terraform creates them first.
func (f field) terraform() string {
	var list []string
	switch v := f.value.(type) {
	case []string:
		for _, x := range v {
			if f.name == "token_policies" {
				list = append(list, "vault_policy."+label(x)+".name")
			} else {
				list = append(list, quote(x))
			}
		}
		return "[" + strings.Join(list, ", ") + "]"
	case map[string]string:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			list = append(list, quote(name)+" = "+quote(v[name]))
		}
		return "{ " + strings.Join(list, ", ") + " }"
	case string:
		if f.name == "token_ttl" || f.name == "token_max_ttl" {
			if d, err := time.ParseDuration(v); err == nil {
				return fmt.Sprint(int(d.Seconds()))
			}
		}
		return quote(v)
	}
	return fmt.Sprint(f.value)
}

// quote returns the expression of a string.
func quote(s string) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(s); err != nil {
		panic(err) // a string can always be encoded
	}
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(strings.TrimSpace(b.String()))
}

var notInLabel = regexp.MustCompile(`[^A-Za-z0-9_-]`)

// label returns a name as an identifier of Terraform.
func label(name string) string {
	name = notInLabel.ReplaceAllString(name, "_")
	if name[0] >= '0' && name[0] <= '9' || name[0] == '-' {
		name = "_" + name
	}
	return name
}
