package provider

import (
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestYAMLAudience verifies that the line to copy contains only the audience, whatever it is.
func TestYAMLAudience(t *testing.T) {
	for _, audience := range []string{
		"", "vault", "https://kubernetes.default.svc", "a: b", "x\n- audience: ''", "yes", "null", "12", "'", `"`,
		"#", "*a", "{a", "- a", "a ", "\u2028", "\x7f", "é",
	} {
		var got []map[string]string
		line := "- audience: " + yamlAudience(audience)
		if err := yaml.Unmarshal([]byte(line), &got); err != nil || len(got) != 1 || len(got[0]) != 1 ||
			got[0]["audience"] != audience {
			t.Errorf("%q: %q is %q, %v", audience, line, got, err)
		}
	}
	if got := yamlAudience("vault"); got != "vault" {
		t.Errorf("got %s", got)
	}
}
