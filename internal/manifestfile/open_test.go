package manifestfile

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/text/encoding/unicode"
)

func utf16(t *testing.T, source string, bom unicode.BOMPolicy) string {
	t.Helper()
	text, err := unicode.UTF16(unicode.LittleEndian, bom).NewEncoder().String(source)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A file in a directory is skipped only if kubectl cannot read it either, and nothing in it matters.
func TestOpenSkips(t *testing.T) {
	template, value := "{{- if .x }}\nkind: Secret\n", string(text(3))
	const read, skipped, failed = "read", "skipped", "failed"
	for _, test := range []struct{ name, source, want string }{
		{"manifest", string(manifestOf(1)), read},
		{"UTF-16", utf16(t, string(manifestOf(1)), unicode.UseBOM), read},
		{"template", template, skipped},
		{"template in UTF-16", utf16(t, template, unicode.UseBOM), skipped},
		{"template with a label", template + "# secretmanager.io/transit-key\n", failed},
		{"template with a label, in UTF-16", utf16(t, template+"# secretmanager.io/transit-key\n", unicode.UseBOM), failed},
		{"template with ciphertext", template + "a: " + value + "\n", failed},
		{"template with ciphertext in UTF-16", utf16(t, template+"a: "+value+"\n", unicode.UseBOM), failed},
		{"UTF-16 without a byte order mark", utf16(t, string(manifestOf(1)), unicode.IgnoreBOM), failed},
		{"Latin-1", "a: gr\xfc\xdfe\n", failed},
		{"JSON with an escaped slash", `{"metadata": {"labels": {"secretmanager.io\/transit-key": "k"}}} {{`, failed},
		{"JSON that only kubectl reads", `{"kind": "ConfigMap", "data": {"a": "x\/y"}}`, failed},
		{"JSON documents in a row", "{\"a\": \"b\"}\n{\"a\": \"b\"}\n", read},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "x.yaml"), []byte(test.source), 0o600); err != nil {
				t.Fatal(err)
			}
			var notes bytes.Buffer
			files, err := Open(nil, &notes, []string{dir}, true)
			got := skipped
			switch {
			case err != nil:
				got = failed
			case len(files) == 1:
				got = read
			}
			if got != test.want || (got == skipped) != strings.Contains(notes.String(), "skipped") {
				t.Errorf("%s (%v)\n%s", got, err, &notes)
			}
			if err != nil && strings.Contains(err.Error(), value) {
				t.Errorf("the error has the ciphertext: %v", err)
			}
		})
	}
}
